//! Live tests: `tcpprobe record` and `join` on real traffic between network namespaces, checked by `check_join`.
//!
//! What cannot run here is shown as ignored, with the reason. A failed test leaves its folder and names it;
//! with TCPPROBE_TEST_KEEP=1 all do.

mod anonymous;
mod clocks;
mod endings;
mod expect;
mod filters;
mod live;
mod matrix;
mod privileges;
mod promises;
mod receiver;
mod sender;
mod sparse;
mod waiting;

use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use tcpprobe_tests::lab::{Bottleneck, LabOptions, Loss, remove_leftovers};
use tcpprobe_tests::preconditions;
use tcpprobe_tests::scene::{MissedSamples, Scene};

/// At most so many tests at once: each has a recorder, a capture and traffic to keep up with.
const THREADS: usize = 2;
/// How often a test that missed samples is tried: on a machine that interrupts a lot, a long transfer without a miss is
/// rare.
const ATTEMPTS: u32 = 30;

/// A test's network, and its steps. Each has a port of its own: its place in this list.
type Test = (&'static str, LabOptions, fn(&Scene) -> Result<()>);

const PLAIN: LabOptions = LabOptions {
    rate_mbit: None,
    queue: Duration::from_millis(60),
    loss: Loss::None,
    router: false,
    bottleneck: None,
    offloads: false,
};
const LIMITED: LabOptions = LabOptions { rate_mbit: Some(200), ..PLAIN };
const LOSSY: LabOptions = LabOptions { loss: Loss::PerMille(10), ..LIMITED };
const LOSSY_ROUTED: LabOptions = LabOptions { router: true, ..LOSSY };
/// Slow behind the sender's own queues.
const SLOW_ROUTER: LabOptions =
    LabOptions { bottleneck: Some(Bottleneck { rate_mbit: 50, queue_bytes: 40_000 }), router: true, ..PLAIN };

const TESTS: &[Test] = &[
    ("sender_capture_50mb_1pct_loss", LOSSY, sender::capture),
    ("receiver_capture_gro_off", LOSSY_ROUTED, receiver::capture),
    ("receiver_capture_gro_on", LOSSY_ROUTED, receiver::capture_gro_on),
    ("receiver_capture_before_loss", LOSSY, receiver::capture),
    ("tcpdump_at_sender", LOSSY, sender::tcpdump),
    // With super-packets there are few packets: every 20th is lost, so that some are.
    (
        "offloads_on",
        LabOptions { offloads: true, loss: Loss::Every { every: 20, offset: 10 }, ..LIMITED },
        sender::offloads_on,
    ),
    ("bbr", LOSSY, sender::bbr),
    ("ipv6", LOSSY, sender::ipv6),
    ("both_directions", LOSSY, sender::both_directions),
    ("heavy_loss", LabOptions { loss: Loss::PerMille(150), ..LOSSY }, sender::heavy_loss),
    ("syn_lost", LabOptions { loss: Loss::Every { every: 100, offset: 0 }, ..LOSSY }, sender::syn_lost),
    (
        "dropped_in_own_queue",
        LabOptions { rate_mbit: Some(50), queue: Duration::from_millis(3), ..PLAIN },
        sender::dropped_in_own_queue,
    ),
    ("short_connections_200", LIMITED, sender::short_connections_200),
    ("loopback_both_ends", PLAIN, sender::loopback_both_ends),
    ("any_interface", LOSSY, sender::any_interface),
    (
        "router_any_interface",
        LabOptions { bottleneck: Some(Bottleneck { rate_mbit: 50, queue_bytes: 40_000 }), router: true, ..PLAIN },
        sender::router_any_interface,
    ),
    ("netns_filter", PLAIN, filters::netns_filter),
    ("port_filter", PLAIN, filters::port_filter),
    ("host_prefix_filter", PLAIN, filters::host_prefix_filter),
    ("check_finds_wrong_joins", LOSSY, promises::check_finds_wrong_joins),
    ("joining_again_replaces", LOSSY, promises::joining_again_replaces),
    ("clock_shifted_at_sender", LabOptions { rate_mbit: Some(50), ..LOSSY }, clocks::at_sender),
    ("clock_shifted_at_receiver", LabOptions { rate_mbit: Some(50), ..LOSSY_ROUTED }, clocks::at_receiver),
    ("sparse_behind_a_queue", LabOptions { rate_mbit: Some(20), ..LOSSY }, sparse::behind_a_queue),
    (
        "sparse_without_a_queue",
        LabOptions { loss: Loss::Every { every: 100, offset: 30 }, offloads: true, ..PLAIN },
        sparse::without_a_queue,
    ),
    ("sparse_recorded", LOSSY, sparse::recorded),
    ("sparse_not_shown", LIMITED, sparse::not_shown),
    ("waits_for_the_application", PLAIN, waiting::for_the_application),
    ("waits_for_the_receive_window", PLAIN, waiting::for_the_receive_window),
    ("waits_for_cwnd", SLOW_ROUTER, waiting::for_cwnd),
    ("waits_for_pacing", PLAIN, waiting::for_pacing),
    ("waits_for_recovery", LabOptions { loss: Loss::PerMille(30), ..LIMITED }, waiting::for_recovery),
    ("child_command", PLAIN, endings::child_command),
    ("duration", PLAIN, endings::duration),
    ("sigint", LIMITED, endings::sigint),
    ("sigterm", LIMITED, endings::sigterm),
    ("sigkill", PLAIN, endings::sigkill),
    ("second_session", PLAIN, endings::second_session),
    ("anonymous_recording_is_joined", LOSSY, anonymous::shared),
    ("privileges_given_up_with_sudo", PLAIN, privileges::given_up_with_sudo),
    ("privileges_given_up_by_root", PLAIN, privileges::given_up_by_root),
    ("privileges_backlog_after_giving_up", PLAIN, privileges::backlog_after_giving_up),
    ("privileges_of_a_command_with_sudo", PLAIN, privileges::command_with_sudo),
    ("privileges_of_a_command_of_root", PLAIN, privileges::command_of_root),
    ("privileges_command_that_is_not_there", PLAIN, privileges::command_that_is_not_there),
    ("privileges_files_of_others", PLAIN, privileges::files_of_others),
];

const IN_A_TERMINAL: &[Test] = &[
    ("live_flows_move_and_keys_work", PLAIN, live::flows_move_and_keys_work),
    ("live_without_colours_and_without_a_terminal", PLAIN, live::without_colours_and_without_a_terminal),
    ("live_record_has_one_line_on_a_terminal", PLAIN, live::record_has_one_line_on_a_terminal),
    ("privileges_given_up_by_live_with_sudo", PLAIN, privileges::given_up_by_live_with_sudo),
    ("privileges_given_up_by_live_of_root", PLAIN, privileges::given_up_by_live_of_root),
];

const WITH_FILE_CAPABILITIES: &[Test] = &[
    ("privileges_given_up_with_file_capabilities", PLAIN, privileges::given_up_with_file_capabilities),
    ("privileges_of_a_command_with_file_capabilities", PLAIN, privileges::command_with_file_capabilities),
];

/// BPF programs see the whole host, and with it these tests in another run of them: each process has its own ports.
static FIRST_PORT: LazyLock<u16> =
    LazyLock::new(|| 10_000 + u16::try_from(std::process::id() % 100).unwrap_or(0) * 200);

static MISSING: LazyLock<Option<String>> = LazyLock::new(|| {
    // Leftovers are no reason not to run.
    let _ = remove_leftovers();
    preconditions::missing()
});

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(THREADS).min(THREADS));
    let mut ports = *FIRST_PORT..;
    let mut trials = Vec::new();
    for (&(name, options, steps), port) in TESTS.iter().zip(&mut ports) {
        trials.push(live(name.into(), port, options, steps));
    }
    for (run, port) in matrix::RUNS.iter().zip(&mut ports) {
        trials.push(live(run.name(), port, run.lab(), |scene| run.steps(scene)));
    }
    trials.push(Trial::test("matrix_every_pair_occurs", || {
        matrix::every_pair_occurs().map_err(|error| format!("{error:#}").into())
    }));
    if let Some(port) = ports.next() {
        trials.push(Trial::ignorable_test("forced_backend_missing", move || {
            match MISSING.clone().or_else(preconditions::kernel_has_kprobes) {
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => in_scene(port, &PLAIN, endings::forced_backend_missing),
            }
        }));
    }
    for (&(name, options, steps), port) in IN_A_TERMINAL.iter().zip(&mut ports) {
        trials.push(Trial::ignorable_test(name, move || match MISSING.clone().or_else(live::missing) {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => in_scene(port, &options, steps),
        }));
    }
    for (&(name, options, steps), port) in WITH_FILE_CAPABILITIES.iter().zip(&mut ports) {
        trials.push(Trial::ignorable_test(name, move || match MISSING.clone().or_else(privileges::missing) {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => in_scene(port, &options, steps),
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn live(name: String, port: u16, options: LabOptions, steps: impl Fn(&Scene) -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match MISSING.clone() {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => in_scene(port, &options, steps),
    })
}

/// Some machines keep BPF programs from running while certain tasks are interrupted: what the network does in that time
/// goes unsampled, by any recorder. A run in which that happened shows nothing, and is repeated; a wrong one never is.
fn in_scene(port: u16, options: &LabOptions, steps: impl Fn(&Scene) -> Result<()>) -> Result<Completion, Failed> {
    for attempt in 1.. {
        match in_one_scene(port, options, &steps) {
            Err(error) if attempt < ATTEMPTS && error.is::<MissedSamples>() => {
                eprintln!("port {port}: attempt {attempt} is repeated: {error:#}");
            }
            Err(error) => return Err(format!("{error:#}").into()),
            Ok(()) => break,
        }
    }
    Ok(Completion::Completed)
}

fn in_one_scene(port: u16, options: &LabOptions, steps: impl Fn(&Scene) -> Result<()>) -> Result<()> {
    let mut scene = Scene::new(port, options)?;
    let result = steps(&scene).and_then(|()| scene.verify());
    if std::env::var_os("TCPPROBE_TEST_KEEP").is_some_and(|keep| keep == "1") || result.is_err() {
        let folder = scene.keep_folder();
        return result.with_context(|| format!("files in {}", folder.display()));
    }
    Ok(())
}
