//! `tcpprobe check`: what this kernel and this user can do.

use std::io::Write as _;
use std::process::ExitCode;

use tcpprobe_probes::{Filter, Options, Sampler, check};

use crate::Outcome;

pub(crate) fn run() -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "kernel        {}", check::kernel_release())?;
    writeln!(out, "BTF           {}", if check::has_btf() { "yes" } else { "no: needs CONFIG_DEBUG_INFO_BTF=y" })?;
    for (name, has) in check::capabilities() {
        writeln!(out, "{name:<13} {}", if has { "yes" } else { "no" })?;
    }
    let options = Options {
        // a mark that no socket is likely to have: attached and looked at, but nothing is recorded
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
                writeln!(out, "{:<36} {how}", attached.point.name())?;
                for refused in &attached.refused {
                    writeln!(out, "{:<36} not {refused}", "")?;
                }
            }
            sampler.stop();
            writeln!(out, "recording is possible")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(out, "recording is not possible: {error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
