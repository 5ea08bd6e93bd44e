//! What goes wrong while `record` or `join` is at work, by chance: afterwards everything that was promised is there.
//!
//! Each round of a test injects one fault at a random moment. `TCPPROBE_TEST_FAULTS` says how many rounds; without it
//! there are as many as a run of all tests has time for. What cannot run here is shown as ignored, with the reason.

mod disk;
mod endings;
mod in_kernel;
mod joins;
mod kept;
mod kills;
mod load;
mod recorders;

use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Completion, Trial};

use tcpprobe_tests::lab::{LabOptions, Loss, remove_leftovers};
use tcpprobe_tests::preconditions;
use tcpprobe_tests::scene::Scene;

const PLAIN: LabOptions = LabOptions {
    rate_mbit: None,
    queue: Duration::from_millis(60),
    loss: Loss::None,
    router: false,
    bottleneck: None,
    offloads: false,
};
/// Few enough samples that a trace is looked through in a moment.
const LIMITED: LabOptions = LabOptions { rate_mbit: Some(40), ..PLAIN };

/// A test's steps; the number is that of its rounds.
type Steps = fn(&Scene, u32) -> Result<()>;

/// Name, network, rounds unless told otherwise, steps.
const TESTS: &[(&str, LabOptions, u32, Steps)] = &[
    ("record_killed", LIMITED, 2, kills::record),
    ("record_stops_with_the_machine", LIMITED, 4, kills::machine),
    ("record_on_a_full_disk", PLAIN, 1, disk::record_full),
    ("record_at_a_limit_of_file_sizes", LIMITED, 1, disk::record_at_limit),
    ("record_with_io_errors", LIMITED, 1, disk::record_with_io_errors),
    ("record_loses_a_file", LIMITED, 3, disk::record_loses_a_file),
    ("record_loses_its_interface", LIMITED, 1, disk::record_loses_its_interface),
    ("record_with_an_exhausted_ring", PLAIN, 1, load::exhausted_ring),
    ("join_killed", LIMITED, 2, joins::killed),
    ("join_on_a_full_disk", LIMITED, 1, joins::full),
    ("join_with_io_errors", LIMITED, 2, joins::with_io_errors),
    ("record_waits_for_another_writer", LIMITED, 1, joins::record_waits),
    ("two_recorders_on_one_trace", LIMITED, 1, recorders::on_one_trace),
    ("two_recorders_on_two_traces", PLAIN, 1, recorders::on_two_traces),
    ("readers_do_not_stop_the_writer", LIMITED, 1, recorders::readers),
    ("end_by_signals", LIMITED, 1, endings::signals),
    ("end_with_its_terminal", LIMITED, 1, endings::terminal),
    ("stopped_and_continued", PLAIN, 1, endings::stopped_and_continued),
    ("end_with_its_command", PLAIN, 1, endings::command),
    ("short_connections", PLAIN, 200, load::short_connections),
    ("concurrent_flows", PLAIN, 200, load::concurrent_flows),
];

/// At most so many tests at once.
const THREADS: usize = 2;

/// As those of `namespaces`, and others than theirs.
static FIRST_PORT: LazyLock<u16> = LazyLock::new(|| 30_000 + u16::try_from(std::process::id() % 50).unwrap_or(0) * 50);

static MISSING: LazyLock<Option<String>> = LazyLock::new(|| {
    // Leftovers are no reason not to run.
    let _ = remove_leftovers();
    preconditions::missing()
});

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(THREADS).min(THREADS));
    let asked: Option<u32> = std::env::var("TCPPROBE_TEST_FAULTS").ok().and_then(|rounds| rounds.parse().ok());
    let trials = TESTS.iter().zip(*FIRST_PORT..).map(|(&(name, options, rounds, steps), port)| {
        Trial::ignorable_test(name, move || match MISSING.clone().or_else(|| missing_for(name)) {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => match in_scene(port, &options, |scene| steps(scene, asked.unwrap_or(rounds))) {
                Ok(()) => Ok(Completion::Completed),
                Err(error) => Err(format!("{error:#}").into()),
            },
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// What one test needs besides, if it is missing.
fn missing_for(name: &str) -> Option<String> {
    match name {
        "record_on_a_full_disk" | "join_on_a_full_disk" => disk::missing_tmpfs(),
        "record_with_io_errors" | "join_with_io_errors" => preconditions::missing_program(&["cc"]),
        "end_with_its_terminal" => preconditions::missing_program(&["tmux"]),
        _ => None,
    }
}

fn in_scene(port: u16, options: &LabOptions, steps: impl Fn(&Scene) -> Result<()>) -> Result<()> {
    let mut scene = Scene::new(port, options)?;
    let result = steps(&scene);
    if result.is_err() {
        let folder = scene.keep_folder();
        return result.with_context(|| format!("files in {}", folder.display()));
    }
    Ok(())
}

/// Moments and places by chance; what was drawn is in the messages of what fails.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new() -> Chance {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Chance(now.map_or(1, |d| d.as_nanos() as u64) | 1)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}
