//! `tcpprobe check`: what this kernel and this user can do.

use std::process::ExitCode;

use tcpprobe_probes::{Filter, Options, Sampler, check};

use crate::Outcome;

#[expect(clippy::print_stdout, reason = "the report is this command's data")]
pub(crate) fn run() -> Outcome {
    println!("kernel        {}", check::kernel_release());
    println!("BTF           {}", if check::has_btf() { "yes" } else { "no: needs CONFIG_DEBUG_INFO_BTF=y" });
    for (name, has) in check::capabilities() {
        println!("{name:<13} {}", if has { "yes" } else { "no" });
    }
    let options = Options {
        // a port that no connection can have: attached and looked at, but nothing is recorded
        filter: Filter { mark: Some(u32::MAX), ..Filter::default() },
        backend: None,
        ring_bytes: 64 << 10,
        sparse: false,
        max_flows: 1,
    };
    match Sampler::start(&options) {
        Ok(mut sampler) => {
            for attached in sampler.attached() {
                let how = match attached.programs.as_slice() {
                    [] => "not watched".to_owned(),
                    programs => programs.join(", "),
                };
                println!("{:<36} {how}", attached.point.name());
                for refused in &attached.refused {
                    println!("{:<36} not {refused}", "");
                }
            }
            sampler.stop();
            println!("recording is possible");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("recording is not possible: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}
