//! The check as one JSON object. docs/check.md has its keys, which are stable.

use serde::Serialize;
use tcpprobe_probes::check::BTF_PATH;
use tcpprobe_probes::{SurveyedPoint, Trial, Trials, Verdict};

use super::Found;
use super::words::advice;

#[derive(Serialize)]
pub(super) struct Report<'a> {
    verdict: &'static str,
    obstacles: Vec<Obstacle>,
    unwatched: Vec<&'static str>,
    kernel_release: &'a str,
    btf_path: Option<&'static str>,
    ring_buffer: Option<bool>,
    memlock_counted: bool,
    memlock_limit_bytes: Option<u64>,
    lockdown: Option<&'static str>,
    in_user_namespace: bool,
    capabilities: Vec<Capability>,
    libpcap: Libpcap<'a>,
    points: Vec<Point<'a>>,
}

#[derive(Serialize)]
struct Obstacle {
    obstacle: &'static str,
    problem: String,
    remedy: String,
}

#[derive(Serialize)]
struct Capability {
    name: &'static str,
    held: bool,
    required: bool,
    purpose: &'static str,
}

#[derive(Serialize)]
struct Libpcap<'a> {
    version: Option<&'a str>,
    can_capture: bool,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct Point<'a> {
    point: &'static str,
    required: bool,
    chosen: Option<&'a [String]>,
    ways: Vec<Way<'a>>,
}

#[derive(Serialize)]
struct Way<'a> {
    backend: Option<&'static str>,
    programs: &'a [String],
    attachable: Option<bool>,
    reason: Option<&'a str>,
}

pub(super) fn report(found: &Found) -> Report<'_> {
    let facts = &found.survey.facts;
    let capability = |c: tcpprobe_probes::check::Capability| Capability {
        name: c.name,
        held: facts.holds(&c),
        required: c.required,
        purpose: c.purpose,
    };
    Report {
        verdict: found.verdict(),
        obstacles: found.obstacles().iter().map(|o| obstacle(o, &found.binary)).collect(),
        unwatched: match &found.survey.verdict {
            Verdict::Possible { unwatched } => unwatched.iter().map(|p| p.key()).collect(),
            Verdict::Impossible { .. } => Vec::new(),
        },
        kernel_release: &facts.kernel_release,
        btf_path: facts.has_btf.then_some(BTF_PATH),
        ring_buffer: found.survey.ring_buffer,
        memlock_counted: facts.memlock.is_some(),
        memlock_limit_bytes: facts.memlock.and_then(|m| m.limit_bytes),
        lockdown: facts.lockdown.map(|l| l.name()),
        in_user_namespace: facts.in_user_namespace,
        capabilities: facts.capabilities().map(capability).collect(),
        libpcap: Libpcap {
            version: found.libpcap.as_deref(),
            can_capture: found.capture.is_ok(),
            reason: found.capture.as_ref().err().map(String::as_str),
        },
        points: found.survey.points.iter().map(point).collect(),
    }
}

fn obstacle(obstacle: &tcpprobe_probes::Obstacle, binary: &str) -> Obstacle {
    let advice = advice(obstacle, binary);
    Obstacle { obstacle: advice.obstacle, problem: advice.problem, remedy: advice.remedy }
}

fn point(surveyed: &SurveyedPoint) -> Point<'_> {
    Point {
        point: surveyed.point.key(),
        required: !surveyed.point.is_optional(),
        chosen: surveyed.chosen().map(|w| w.programs.as_slice()),
        ways: surveyed.ways.iter().map(way).collect(),
    }
}

fn way(trials: &Trials) -> Way<'_> {
    let (attachable, reason) = match &trials.trial {
        Trial::Attachable => (Some(true), None),
        Trial::Refused(why) => (Some(false), Some(why.as_str())),
        Trial::Untried => (None, None),
    };
    Way { backend: trials.backend.map(|b| b.name()), programs: &trials.programs, attachable, reason }
}
