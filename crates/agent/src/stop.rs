//! The wish to end: SIGTERM or SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells when the program should end. Cloned for everyone who waits.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for both signals. Must be called inside the runtime.
    pub fn on_signals() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_replace(true);
        });
        Ok(Self(receiver))
    }

    /// Returns when the program should end.
    pub async fn wait(&mut self) {
        // An error means that the sender is gone, which only happens when the runtime ends.
        let _ = self.0.wait_for(|is_stopping| *is_stopping).await;
    }
}
