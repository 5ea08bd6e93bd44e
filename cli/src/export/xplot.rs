//! `tcpprobe export --to xplot`: one flow's graph, or a folder of all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tcpprobe_replay::export::columns::{Selection, Source, Watch};
use tcpprobe_replay::export::xplot::{Drawn, export};
use tcpprobe_trace::columns::View;

use super::columns::until_interrupted;
use crate::Outcome;
use crate::args::ExportArgs;
use crate::output::{new_file, new_folder, standard};
use crate::progress::Progress;
use crate::words::{counted, say};

pub(super) fn run(args: &ExportArgs) -> Outcome {
    let source = Source::open(&args.trace, &Selection { flows: args.flows.clone(), session: args.session })?;
    let is_stdout = args.output.as_os_str() == "-";
    let bar = Progress::of_rows(source.rows(View::Samples)?);
    let (graphs, all) = if is_stdout || args.output.extension().is_some_and(|e| e == "xpl") {
        let &[flow] = source.flows() else {
            let flows = counted(source.flows().len() as u64, "flow");
            bail!(
                "{}: {flows}, and a file has the graph of one: choose it with --flow, or name a folder with -o DIR",
                args.trace.display()
            );
        };
        let drawn = if is_stdout {
            let mut show = |done| {
                bar.set(done);
                ControlFlow::Continue(())
            };
            let mut out = BufWriter::new(standard());
            export(&source, flow, &mut out, &mut 0, &mut show)?
        } else {
            let mut watch = until_interrupted(&bar)?;
            new_file(&args.output, |file| Ok(export(&source, flow, &mut BufWriter::new(file), &mut 0, &mut watch)?))?
        };
        (1, drawn)
    } else {
        let mut watch = until_interrupted(&bar)?;
        new_folder(&args.output, |folder| each(&source, folder, &mut watch))?
    };
    drop(bar);
    if all.left_out > 0 {
        say!("{} left out: without sequence numbers", counted(all.left_out, "sample"));
    }
    if !is_stdout {
        say!("{}: {}, {}", args.output.display(), counted(graphs, "graph"), counted(all.segments, "segment"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A graph for each flow that sent something; how many there are, and what they have.
fn each(source: &Source, folder: &Path, watch: Watch<'_>) -> anyhow::Result<(u64, Drawn)> {
    let (mut graphs, mut done, mut all) = (0, 0, Drawn::default());
    for &flow in source.flows() {
        let path = folder.join(format!("flow-{}.xpl", flow.id));
        let mut out = BufWriter::new(File::create_new(&path).with_context(|| path.display().to_string())?);
        let drawn = export(source, flow, &mut out, &mut done, watch)?;
        out.flush().with_context(|| path.display().to_string())?;
        all.left_out += drawn.left_out;
        all.segments += drawn.segments;
        if drawn.segments == 0 {
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        } else {
            graphs += 1;
        }
    }
    if graphs == 0 {
        bail!("{}: no flow has a sample of a sent segment: nothing to draw", source.trace().display());
    }
    Ok((graphs, all))
}
