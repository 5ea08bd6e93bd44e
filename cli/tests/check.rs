//! `tcpprobe check` of this very machine: as this user, and as one without capabilities.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::process::Command;

const TCPPROBE: &str = env!("CARGO_BIN_EXE_tcpprobe");

/// Runs the check; its exit code must be what its verdict says.
fn report(command: &mut Command) -> serde_json::Value {
    let output = command.args(["check", "--format", "json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let impossible = report["verdict"] == "impossible";
    assert_eq!(output.status.code(), Some(i32::from(impossible)), "{report}");
    assert_eq!(report["obstacles"].as_array().unwrap().is_empty(), !impossible, "{report}");
    report
}

#[test]
fn exit_code_and_verdict_agree() {
    let report = report(&mut Command::new(TCPPROBE));
    assert_eq!(report["points"].as_array().unwrap().len(), 6);
}

#[test]
fn without_capabilities_everything_is_printed_and_the_way_out_is_named() {
    let mut command = Command::new(TCPPROBE);
    if nix::unistd::Uid::effective().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", TCPPROBE]);
    }
    let report = report(&mut command);
    assert_eq!(report["verdict"], "impossible");
    let named = report["obstacles"].as_array().unwrap().iter().any(|o| o["obstacle"] == "missing_capabilities");
    assert!(named, "{report}");
    assert!(!report["kernel_release"].as_str().unwrap().is_empty());
}
