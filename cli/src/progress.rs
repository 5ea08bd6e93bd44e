//! How far something long has come: a bar on standard error where that is a terminal, nothing elsewhere.

use std::io::{IsTerminal as _, Read};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::sql::printable;

/// A bar; it goes when this is dropped. It has no colours.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// For so many rows.
    pub(crate) fn of_rows(total: u64) -> Progress {
        Progress::new("rows", Some(total), "{prefix}  {bar:30} {percent:>3} %  {human_pos} of {human_len}  {eta} left")
    }

    /// For what is read of a file; how many bytes it has is not known of a pipe.
    pub(crate) fn of_bytes(name: &str, total: Option<u64>) -> Progress {
        match total {
            Some(_) => Progress::new(
                name,
                total,
                "{prefix}  {bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  {eta} left",
            ),
            None => Progress::new(name, None, "{prefix}  {binary_bytes}"),
        }
    }

    fn new(name: &str, total: Option<u64>, template: &str) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        // a template that is wrong costs its looks only
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
            .with_style(style.progress_chars("=> "))
            .with_prefix(printable(name));
        bar.tick();
        bar.enable_steady_tick(Duration::from_millis(500));
        Progress(Some(bar))
    }

    /// So much is done.
    pub(crate) fn set(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// Counts what is read.
    pub(crate) fn reading(&self, reader: impl Read + Send + 'static) -> Box<dyn Read + Send> {
        match &self.0 {
            Some(bar) => Box::new(bar.wrap_read(reader)),
            None => Box::new(reader),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
