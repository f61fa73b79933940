//! Warnings that strangers can cause: said now and then, with how often they were due.

use std::time::Duration;

use parking_lot::Mutex;

/// Between two warnings of one kind.
const EVERY: Duration = Duration::from_secs(60);

/// When a warning was last said, and how often it was due since.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said_at: Option<Duration>,
    since: u64,
}

impl Seldom {
    /// Counts an occasion at `now`, on any clock that does not go back; how many there were if it is time to say so.
    pub fn due(&self, now: Duration) -> Option<u64> {
        let mut state = self.0.lock();
        state.since += 1;
        if state
            .said_at
            .is_some_and(|said_at| now.saturating_sub(said_at) < EVERY)
        {
            return None;
        }
        state.said_at = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_occasion_is_said_and_then_one_in_a_minute_for_all() {
        let seldom = Seldom::default();
        assert_eq!(seldom.due(Duration::from_secs(5)), Some(1));
        assert_eq!(seldom.due(Duration::from_secs(6)), None);
        assert_eq!(seldom.due(Duration::from_secs(64)), None);
        assert_eq!(seldom.due(Duration::from_secs(65)), Some(3));
        assert_eq!(seldom.due(Duration::from_secs(66)), None);
    }
}
