//! The check as text.

use std::io::Write;

use tcpprobe_probes::check::BTF_PATH;
use tcpprobe_probes::{Backend, SurveyedPoint, Trial, Verdict};

use super::Found;
use super::words::advice;
use crate::args::DEFAULT_BUFFER_BYTES;

pub(super) fn print(found: &Found, out: &mut dyn Write) -> std::io::Result<()> {
    facts(found, out)?;
    capabilities(found, out)?;
    points(found, out)?;
    verdict(found, out)
}

fn facts(found: &Found, out: &mut dyn Write) -> std::io::Result<()> {
    let facts = &found.survey.facts;
    writeln!(out, "kernel         {}", facts.kernel_release)?;
    let btf = if facts.has_btf { BTF_PATH } else { "none: the kernel was built without CONFIG_DEBUG_INFO_BTF" };
    writeln!(out, "BTF            {btf}")?;
    let ring = match found.survey.ring_buffer {
        Some(true) => "yes",
        Some(false) => "this kernel has none",
        None => "not tried: this user may not",
    };
    writeln!(out, "ring buffer    {ring}")?;
    if let Some(memlock) = facts.memlock {
        let limit = memlock.limit_bytes.map_or("unlimited".to_owned(), |b| format!("{b} bytes"));
        writeln!(out, "locked memory  {limit}; record wants more than {DEFAULT_BUFFER_BYTES} bytes")?;
    }
    writeln!(out, "lockdown       {}", facts.lockdown.map_or("not said by this kernel", |l| l.name()))?;
    let version = found.libpcap.as_deref().unwrap_or("of unknown version");
    match &found.capture {
        Ok(()) => writeln!(out, "libpcap        {version}, can capture"),
        Err(why) => writeln!(out, "libpcap        {version}, cannot capture: {why}"),
    }
}

fn capabilities(found: &Found, out: &mut dyn Write) -> std::io::Result<()> {
    let facts = &found.survey.facts;
    writeln!(out)?;
    for capability in facts.capabilities() {
        let held = if facts.holds(&capability) { "held" } else { "missing" };
        writeln!(out, "{:<17} {held:<8} to {}", capability.name, capability.purpose)?;
    }
    Ok(())
}

fn points(found: &Found, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "\n{:<34} {:<7} {:<7} {:<11} record uses", "probe point", "fentry", "kprobe", "tracepoint")?;
    for point in &found.survey.points {
        let [fentry, kprobe, tracepoint] = Backend::ALL.map(|backend| outcome(point, backend));
        let chosen = point.chosen().map_or("-".to_owned(), |w| w.programs.join(", "));
        writeln!(out, "{:<34} {fentry:<7} {kprobe:<7} {tracepoint:<11} {chosen}", point.point.name())?;
    }
    let refusals = refusals(&found.survey.points);
    if !refusals.is_empty() {
        writeln!(out)?;
    }
    for (why, ways) in refusals {
        writeln!(out, "{why}:\n  {}", ways.join(", "))?;
    }
    Ok(())
}

/// Whether a backend can watch a point by any of its ways.
fn outcome(point: &SurveyedPoint, backend: Backend) -> &'static str {
    if point.of_backend(backend).any(|w| w.trial == Trial::Attachable) {
        "yes"
    } else if point.of_backend(backend).any(|w| w.trial == Trial::Untried) {
        "?"
    } else {
        "no"
    }
}

/// Each reason once, with the programs that it stops, each of them once.
fn refusals(points: &[SurveyedPoint]) -> Vec<(&str, Vec<&str>)> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for way in points.iter().flat_map(|p| &p.ways) {
        let Trial::Refused(why) = &way.trial else { continue };
        // what one program of several was refused for, without its name
        let named = way.programs.iter().find_map(|p| Some((p, why.strip_prefix(p.as_str())?.strip_prefix(": ")?)));
        let (why, ways) = match named {
            Some((program, why)) => (why, vec![program.as_str()]),
            None => (why.as_str(), way.programs.iter().map(String::as_str).collect()),
        };
        let at = reasons.iter().position(|(known, _)| *known == why).unwrap_or_else(|| {
            reasons.push((why, Vec::new()));
            reasons.len() - 1
        });
        // several ways may share a program
        for way in ways {
            if !reasons[at].1.contains(&way) {
                reasons[at].1.push(way);
            }
        }
    }
    reasons
}

fn verdict(found: &Found, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out)?;
    let unwatched = match &found.survey.verdict {
        Verdict::Impossible { obstacles } => {
            writeln!(out, "recording is not possible")?;
            for obstacle in obstacles {
                let advice = advice(obstacle, &found.binary);
                writeln!(out, "  {}\n    {}", advice.problem, advice.remedy)?;
            }
            return Ok(());
        }
        Verdict::Possible { unwatched } => unwatched,
    };
    if found.verdict() == "full" {
        return writeln!(out, "recording is possible");
    }
    writeln!(out, "recording is possible, but not all of it:")?;
    for point in unwatched {
        writeln!(out, "  {} are not watched", point.name())?;
    }
    if found.capture.is_err() {
        writeln!(out, "  packets cannot be captured: record with --no-pcap, or run as root")?;
    }
    Ok(())
}
