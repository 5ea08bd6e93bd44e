//! `tcpprobe live`: flows as they move, on the terminal. Nothing is written down.

mod model;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;
use signal_hook::consts::{SIGHUP, SIGTERM};
use tcpprobe_probes::{Decoder, Options, Records, Sampler, clock};

use crate::Outcome;
use crate::args::{LiveArgs, Sort};
use crate::confine::confine;
use crate::privilege::{self, Caller};
use crate::sockets;
use model::{Model, Order, Watched};
use view::Shown;

/// How long the ring may fill before it is emptied, and a key may wait.
const WAIT: Duration = Duration::from_millis(50);
/// Bytes of records that are decoded at once.
const BATCH_BYTES: usize = 1 << 20;

pub(crate) fn run(args: &LiveArgs) -> Outcome {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("live needs a terminal; `tcpprobe record --print` writes samples as lines");
    }
    let (filter, _) = sockets::filter(&args.sockets)?;
    let options = Options {
        filter,
        backend: sockets::backend(args.backend),
        ring_bytes: args.buffer,
        sparse: false,
        max_flows: sockets::MAX_FLOWS,
    };
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).context("cannot catch signals")?;
    }
    let (sampler, keep) = privilege::needed_to_the_end(Sampler::start(&options)?, Sampler::is_readable)?;
    privilege::give_up(Caller::behind_sudo(), &keep)?;
    confine(None)?;
    let what = format!("{} with {}", sockets::describe(&args.sockets), sampler.backend());
    let decoder = sampler.decoder();
    let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut live = Live {
        sampler,
        decoder,
        model: Model::default(),
        what,
        order: match args.sort {
            Sort::Rate => Order::Rate,
            Sort::Loss => Order::Loss,
            Sort::Rtt => Order::Rtt,
        },
        coloured,
        selected: TableState::default().with_selected(Some(0)),
        opened: None,
        paused: false,
    };
    // gives the terminal back as it was, also where the program panics
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let outcome = live.run(&mut terminal, &ended);
    ratatui::restore();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// What comes from the terminal, read by a thread of its own: where the terminal has gone, reading never returns.
fn events() -> anyhow::Result<Receiver<std::io::Result<Event>>> {
    let (to, events) = bounded(64);
    std::thread::Builder::new().name("terminal".into()).spawn(move || while to.send(event::read()).is_ok() {})?;
    Ok(events)
}

struct Live {
    sampler: Sampler,
    decoder: Decoder,
    model: Model,
    what: String,
    order: Order,
    coloured: bool,
    selected: TableState,
    /// The flow that is shown by itself.
    opened: Option<u64>,
    /// Figures stand still; samples are taken all the same.
    paused: bool,
}

impl Live {
    fn run(&mut self, terminal: &mut DefaultTerminal, ended: &AtomicBool) -> anyhow::Result<()> {
        self.draw(terminal)?;
        let events = events()?;
        let mut records = Records::with_capacity(BATCH_BYTES);
        while !ended.load(Ordering::Acquire) {
            let mut redraw = false;
            match events.recv_timeout(WAIT) {
                Ok(event) => match event.context("cannot read the terminal")? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        if self.key(key) {
                            return Ok(());
                        }
                        redraw = true;
                    }
                    Event::Resize(..) => redraw = true,
                    _ => {}
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            records = self.take(records);
            if !self.paused && self.model.tick(clock::anchor().mono_ns()) {
                redraw = true;
            }
            if redraw {
                self.draw(terminal)?;
            }
        }
        Ok(())
    }

    /// Takes what stands in the ring.
    fn take(&mut self, mut records: Records) -> Records {
        loop {
            let more = self.sampler.drain(BATCH_BYTES, &mut records);
            if !self.paused {
                self.decoder.events(&records).for_each(|event| self.model.take(event));
            } else {
                // flows that begin meanwhile are to be known afterwards
                let flows = self.decoder.events(&records).filter(|e| matches!(e, tcpprobe_probes::Event::Flow(_)));
                flows.for_each(|event| self.model.take(event));
            }
            records = Records::from_spare(records.into_bytes());
            if !more {
                return records;
            }
        }
    }

    /// What a key does; is it the last one?
    fn key(&mut self, key: KeyEvent) -> bool {
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Char('q') => return true,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.opened = None,
            KeyCode::Enter | KeyCode::Right => {
                let flows = self.model.sorted(self.order);
                self.opened = self.selected.selected().and_then(|at| flows.get(at)).map(|flow| flow.flow.key);
            }
            KeyCode::Down | KeyCode::Char('j') => self.selected.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.selected.select_previous(),
            KeyCode::Home => self.selected.select_first(),
            KeyCode::End => self.selected.select_last(),
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            _ => {}
        }
        false
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
        let lost: u64 =
            self.sampler.losses().by_cause().iter().filter(|(cause, _)| cause.is_of_samples()).map(|(_, n)| n).sum();
        let shown = Shown {
            what: &self.what,
            samples_per_s: self.model.samples_per_s,
            lost: lost + self.model.orphans,
            order: self.order,
            paused: self.paused,
            coloured: self.coloured,
        };
        let opened = self.opened.and_then(|key| self.model.flow(key));
        let flows: Vec<&Watched> = self.model.sorted(self.order);
        let selected = &mut self.selected;
        terminal
            .draw(|frame| match opened {
                Some(flow) => view::flow(frame, flow, &shown),
                None => view::table(frame, &flows, selected, &shown),
            })
            .context("cannot write to the terminal")?;
        Ok(())
    }
}
