//! The Debian package, as it is installed, reconfigured and purged on a copy of this machine's files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Completion, Trial};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tcpprobe_tests::{preconditions, tools};

const LIMIT: Duration = Duration::from_secs(180);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/package.sh");

fn main() -> ExitCode {
    let missing = preconditions::missing()
        .or_else(|| preconditions::missing_program(&["dpkg", "debconf-set-selections", "chroot", "runuser", "getcap"]))
        .or_else(|| {
            let none = preconditions::missing_program(&["cargo-deb"])?;
            Some(none.replace("scripts/setup.sh installs it", "cargo install cargo-deb"))
        })
        .or_else(|| Machine::new().err().map(|e| format!("no copy of this machine's files: {e:#}")));
    let test = Trial::ignorable_test("installed_recorded_with_and_purged", move || match missing {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => installed().map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into()),
    });
    libtest_mimic::run(&Arguments::from_args(), vec![test]).exit_code()
}

/// This machine's files, where what is changed goes into memory and is forgotten.
struct Machine {
    folder: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Machine {
    fn new() -> Result<Machine> {
        let folder = tempfile::tempdir()?;
        let mut machine = Machine { folder, mounted: Vec::new() };
        let base = machine.folder.path().to_owned();
        machine.mount("tmpfs", base.clone(), Some("tmpfs"), MsFlags::empty(), Some("size=1g"))?;
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(base.join(name))?;
        }
        let layers =
            format!("lowerdir=/,upperdir={},workdir={}", base.join("upper").display(), base.join("work").display());
        machine.mount("overlay", base.join("root"), Some("overlay"), MsFlags::empty(), Some(&layers))?;
        for name in ["proc", "sys", "dev"] {
            let from = format!("/{name}");
            machine.mount(&from, base.join("root").join(name), None, MsFlags::MS_BIND | MsFlags::MS_REC, None)?;
        }
        Ok(machine)
    }

    fn mount(
        &mut self,
        from: &str,
        to: PathBuf,
        kind: Option<&str>,
        flags: MsFlags,
        options: Option<&str>,
    ) -> Result<()> {
        mount(Some(from), &to, kind, flags, options)
            .with_context(|| format!("cannot mount {from} as {}", to.display()))?;
        // what is unmounted there must not be unmounted here
        mount(None::<&str>, &to, None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?;
        self.mounted.push(to);
        Ok(())
    }

    /// Runs a line of shell; its output, without the last line's end.
    fn run(&self, line: &str) -> Result<String> {
        let mut command = Command::new("chroot");
        command.arg(self.folder.path().join("root")).args(["sh", "-ec", line]).env("DEBIAN_FRONTEND", "noninteractive");
        let done = tools::run(&mut command, LIMIT)?.expect_code(0).with_context(|| line.to_owned())?;
        Ok(done.stdout.trim_end().to_owned())
    }

    /// The same, of one that is to fail; what it says.
    fn refused(&self, line: &str) -> Result<String> {
        self.run(&format!("if {{ {line}; }} 2>&1; then echo 'it did not fail'; exit 1; fi"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for mounted in self.mounted.iter().rev() {
            let _ = umount2(mounted, MntFlags::MNT_DETACH);
        }
    }
}

/// The crates whose code is in a program, with their versions: its debug information has the paths of their sources.
fn linked_crates(program: &[u8]) -> BTreeSet<String> {
    let sources = b"/registry/src/";
    let at = program.windows(sources.len()).enumerate().filter(|(_, bytes)| bytes == sources).map(|(at, _)| at);
    let crates = at.filter_map(|at| {
        // in the folder of a registry; it is the end of some paths
        let path = program[at + sources.len()..].splitn(3, |b| *b == b'/').nth(1)?;
        let name = path.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(b));
        let name: String = name.map(|b| char::from(*b)).collect();
        name.contains('-').then_some(name)
    });
    crates.collect()
}

/// Is everything of others that is in the program named with its licence, and has it a text, or is it said to have none?
fn expect_notices(notices: &str) -> Result<()> {
    let (works, texts) = notices.split_once("\n====").context("no texts")?;
    let named: BTreeSet<&str> =
        works.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    let linked = linked_crates(&std::fs::read(tools::tcpprobe()?)?);
    ensure!(linked.len() > 100, "not the crates of a program: {linked:?}");
    let missing: Vec<_> = linked.iter().filter(|of| !named.contains(of.as_str())).collect();
    ensure!(missing.is_empty(), "linked, and not in THIRD-PARTY: {missing:?}");
    let (mut current, mut silent) = ("", named.clone());
    for line in works.lines() {
        if !line.starts_with(' ') {
            current = line.split_once(": ").map_or("", |(name, _)| name);
        } else if let Some((_, number)) = line.rsplit_once(": text ") {
            ensure!(texts.contains(&format!("\nText {number}\n")), "{current}: no text {number}");
            silent.remove(current);
        } else if line.contains("has no text of its licence") {
            silent.remove(current);
        }
    }
    ensure!(silent.is_empty(), "no word of the texts of {silent:?}");
    for words in [
        "Bitstream Vera Fonts Copyright",
        "plotly.js v",
        "The author disclaims copyright to this source code",
        "For Zstandard software",
        "Copyright notices for The Rust Standard Library",
        "UNICODE LICENSE V3",
    ] {
        ensure!(texts.contains(words), "no notice `{words}`");
    }
    Ok(())
}

fn installed() -> Result<()> {
    let machine = Machine::new()?;
    let into = machine.folder.path().join("root/tmp/package");
    let mut package = Command::new("bash");
    package.arg(SCRIPT).arg("--program").arg(tools::tcpprobe()?).arg(&into);
    let made = tools::run(&mut package, LIMIT)?.expect_code(0)?.stdout;
    let name = made.trim_end().rsplit('/').next().unwrap_or_default().to_owned();
    let file = format!("/tmp/package/{name}");

    // nobody is asked: root records, everyone may run it
    machine.run(&format!("dpkg -i --force-depends {file}"))?;
    ensure!(machine.run("stat -c '%a %U %G' /usr/bin/tcpprobe")? == "755 root root");
    ensure!(machine.run("getcap /usr/bin/tcpprobe")?.is_empty(), "nobody asked for capabilities");
    let help = machine.run("/usr/bin/tcpprobe --help")?;
    for (command, _) in help.lines().filter_map(|l| l.strip_prefix("  ")?.split_once("  ")) {
        if command.starts_with(|c: char| c.is_ascii_lowercase()) && command != "help" {
            machine.run(&format!("test -s /usr/share/man/man1/tcpprobe-{command}.1*"))?;
        }
    }
    for file in [
        "man/man1/tcpprobe.1*",
        "bash-completion/completions/tcpprobe",
        "zsh/vendor-completions/_tcpprobe",
        "fish/vendor_completions.d/tcpprobe.fish",
        "tcpprobe/tcpprobe.lua",
        "doc/tcpprobe/copyright",
        "doc/tcpprobe/docs/tutorial.md",
    ] {
        machine.run(&format!("test -s /usr/share/{file}"))?;
    }
    expect_notices(&machine.run("cat /usr/share/doc/tcpprobe/THIRD-PARTY")?)?;
    let stall = "/usr/share/doc/tcpprobe/docs/tutorial/stall.db";
    machine.run(&format!("cp {stall} /tmp/stall.db"))?;
    ensure!(
        machine.run("/usr/bin/tcpprobe sql /tmp/stall.db 'SELECT count(*) FROM flows' --format csv")?.ends_with('1')
    );

    // a group may record
    machine.run(
        "echo 'tcpprobe tcpprobe/setcap boolean true' | debconf-set-selections
         dpkg-reconfigure -fnoninteractive tcpprobe
         useradd --create-home --groups tcpprobe member && useradd --create-home stranger",
    )?;
    ensure!(machine.run("stat -c '%a %U %G' /usr/bin/tcpprobe")? == "750 root tcpprobe");
    let record = "/usr/bin/tcpprobe record -w trace.db --port 9 --duration 1 -i lo";
    machine.run(&format!("cd /home/member && runuser -u member -- {record} 2>&1"))?;
    ensure!(machine.run("stat -c %U /home/member/trace.db /home/member/trace.pcap")? == "member\nmember");
    let said = machine.refused(&format!("cd /home/stranger && runuser -u stranger -- {record}"))?;
    ensure!(said.contains("ermission denied"), "{said}");

    // a newer one of the same keeps what was answered
    machine.run(&format!("dpkg -i --force-depends {file}"))?;
    ensure!(machine.run("stat -c '%a %U %G' /usr/bin/tcpprobe")? == "750 root tcpprobe");
    let capabilities = machine.run("getcap /usr/bin/tcpprobe")?;
    ensure!(capabilities.contains("cap_bpf"), "{capabilities}");

    machine.run("dpkg --purge tcpprobe")?;
    let left = machine.run(
        "dpkg-statoverride --list | grep tcpprobe || true
         getent group tcpprobe || true
         debconf-show tcpprobe
         find /usr /etc /var/lib/dpkg/info -xdev -path '*tcpprobe*' -newer /tmp/package || true",
    )?;
    ensure!(left.is_empty(), "left behind:\n{left}");
    Ok(())
}
