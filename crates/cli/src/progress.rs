//! Progress on standard error, and waiting for something to end.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often something that is waited for is asked about, at first and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// A bar with a count; hidden where standard error is no terminal.
pub fn bar(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what);
    styled(bar, "{msg} [{bar:30}] {pos}/{len} {prefix}")
}

/// A moving mark with a text.
pub fn spinner(message: String) -> ProgressBar {
    let bar = styled(ProgressBar::new_spinner(), "{spinner} {msg} ({elapsed})");
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Paces questions: quick at first, slower with time, until a deadline.
#[derive(Debug)]
pub struct Pace {
    pause: Duration,
    deadline: Option<tokio::time::Instant>,
}

impl Pace {
    /// For as long as given; forever without.
    pub fn new(timeout: Option<Duration>) -> Self {
        Self {
            pause: POLL.0,
            deadline: timeout.map(|timeout| tokio::time::Instant::now() + timeout),
        }
    }

    /// Waits before the next question; false where the time is over.
    pub async fn next(&mut self) -> bool {
        let wake = tokio::time::Instant::now() + self.pause;
        self.pause = (self.pause * 5 / 4).min(POLL.1);
        match self.deadline {
            Some(deadline) if deadline <= tokio::time::Instant::now() => false,
            Some(deadline) => {
                tokio::time::sleep_until(wake.min(deadline)).await;
                true
            }
            None => {
                tokio::time::sleep_until(wake).await;
                true
            }
        }
    }
}
