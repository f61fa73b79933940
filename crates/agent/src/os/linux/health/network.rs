//! Traffic, damage and the radio (proc_net(5)). How far away the server is, the link measures itself.

use muster_model::telemetry::{LABEL_VALUES_MAX, Metric};

use super::{Collector, Look, LookAt, number, read_text};

/// Segments of TCP since the start (RFC 4022, `tcpOutSegs` and `tcpRetransSegs`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Segments {
    sent: f64,
    again: f64,
}

impl Collector {
    pub(super) fn read_network(&mut self, at: LookAt<'_>, look: &mut Look) {
        let traffic = [
            Metric::NetworkReceived,
            Metric::NetworkTransmitted,
            Metric::NetworkErrors,
        ];
        if at.wants(&traffic) {
            self.read_traffic(look);
        }
        if at.wants(&[Metric::NetworkSignal]) {
            let text = read_text(&self.root, "/proc/net/wireless");
            for (interface, dbm) in text.lines().skip(2).filter_map(signal).take(LABEL_VALUES_MAX) {
                look.read_labeled(Metric::NetworkSignal, interface, dbm);
            }
        }
        if at.wants(&[Metric::NetworkLoss]) {
            let now = segments(&read_text(&self.root, "/proc/net/snmp"));
            if let (Some(before), Some(now)) = (self.segments, now) {
                let (sent, again) = (now.sent - before.sent, now.again - before.again);
                if sent > 0.0 && again >= 0.0 {
                    look.read(Metric::NetworkLoss, (again / sent).min(1.0));
                }
            }
            self.segments = now.or(self.segments);
        }
    }

    /// Interfaces that are devices; where none is, as in a container, all but the loopback.
    fn read_traffic(&self, look: &mut Look) {
        let text = read_text(&self.root, "/proc/net/dev");
        let lines: Vec<(&str, Vec<f64>)> = text.lines().filter_map(interface).collect();
        let is_device = |name: &str| self.root.exists(&format!("/sys/class/net/{name}/device"));
        let has_devices = lines.iter().any(|(name, _)| is_device(name));
        let counted = lines
            .iter()
            .filter(|(name, _)| *name != "lo" && (!has_devices || is_device(name)));
        let (mut received, mut sent, mut errors) = (0.0, 0.0, 0.0);
        for (_, fields) in counted {
            let field = |at: usize| fields.get(at).copied().unwrap_or(0.0);
            received += field(0);
            sent += field(8);
            errors += field(2) + field(3) + field(10) + field(11);
        }
        if !lines.is_empty() {
            look.read(Metric::NetworkReceived, received);
            look.read(Metric::NetworkTransmitted, sent);
            look.read(Metric::NetworkErrors, errors);
        }
    }
}

fn interface(line: &str) -> Option<(&str, Vec<f64>)> {
    let (name, fields) = line.split_once(':')?;
    let fields = fields.split_whitespace().map_while(|field| field.parse().ok());
    Some((name.trim(), fields.collect()))
}

/// `wlan0: 0000   54.  -56.  -256 …`: status, quality, level.
fn signal(line: &str) -> Option<(&str, f64)> {
    let (name, fields) = line.split_once(':')?;
    let level = fields.split_whitespace().nth(2)?;
    let dbm = number(level.trim_end_matches('.'))?;
    (-200.0..0.0).contains(&dbm).then_some((name.trim(), dbm))
}

/// A line of names and a line of numbers.
fn segments(text: &str) -> Option<Segments> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let at = names.split(' ').position(|name| name == wanted)?;
        numbers.split(' ').nth(at).and_then(number)
    };
    Some(Segments {
        sent: value("OutSegs")?,
        again: value("RetransSegs")?,
    })
}
