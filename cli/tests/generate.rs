//! Man pages and completions: there for every command, and of use to their programs.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::process::Command;

fn tcpprobe(arguments: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_tcpprobe")).args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = tcpprobe(&["--help"]);
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    listed.filter_map(|l| l.split_whitespace().next()).filter(|c| *c != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_page_with_all_its_options() {
    let folder = tempfile::tempdir().unwrap();
    tcpprobe(&["generate", "man", "-o", folder.path().to_str().unwrap()]);
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let page = std::fs::read_to_string(folder.path().join(format!("tcpprobe-{command}.1"))).unwrap();
        let help = tcpprobe(&[&command, "--help"]);
        let words = help.split(|c: char| !(c.is_alphanumeric() || c == '-'));
        for option in words.filter(|w| w.starts_with("--") && w.len() > 2) {
            assert!(page.replace('\\', "").contains(option), "{option} of {command}");
        }
        assert!(page.contains("Examples"), "{command}");
    }
    assert!(folder.path().join("tcpprobe.1").exists());
}

#[test]
fn bash_completes_commands_and_options() {
    let script = tcpprobe(&["generate", "bash"]);
    let complete = |words: &[&str]| {
        let program = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _tcpprobe tcpprobe '{}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let out = Command::new("bash").arg("-c").arg(program).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["tcpprobe", "jo"]), "join");
    assert_eq!(complete(&["tcpprobe", "join", "--dry"]), "--dry-run");
}

#[test]
fn the_other_shells_have_scripts_that_name_every_command() {
    for shell in ["zsh", "fish"] {
        let script = tcpprobe(&["generate", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{command} for {shell}");
        }
    }
}
