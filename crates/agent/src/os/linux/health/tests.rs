//! Trees that look like machines, and what is read from them.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

const BOOT: &str = "6e2b3f0a-7f1d-4c9e-8a53-0d4b7a1c2e3f";
const NOON: i64 = 1_795_900_000;

/// A laptop on a train.
const LAPTOP: &[(&str, &str)] = &[
    ("/proc/sys/kernel/random/boot_id", BOOT),
    (
        "/proc/stat",
        "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 100 0 100 700 100 0 0 0 0 0\n",
    ),
    ("/proc/loadavg", "0.52 0.58 0.59 2/1234 98765\n"),
    (
        "/proc/meminfo",
        "MemTotal:       16000000 kB\nMemFree:          500000 kB\nMemAvailable:    4000000 kB\n\
         SwapTotal:       2000000 kB\nSwapFree:        1500000 kB\n",
    ),
    (
        "/proc/pressure/memory",
        "some avg10=0.00 avg60=1.50 avg300=0.10 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    ),
    ("/proc/vmstat", "nr_free_pages 1\noom_kill 2\n"),
    (
        "/proc/net/dev",
        "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop\n    \
         lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n wlan0: 5000 10 1 2 0 0 0 0 7000 20 3 4 0 0 0 0\n",
    ),
    ("/sys/class/net/wlan0/device/vendor", "0x8086"),
    (
        "/proc/net/wireless",
        "Inter-| sta-|   Quality        |   Discarded packets\n face | tus | link level noise |  nwid\n\
         wlan0: 0000   54.  -56.  -256        0      0      0\n",
    ),
    (
        "/proc/net/snmp",
        "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm OutSegs RetransSegs\nTcp: 1 1000 10\n",
    ),
    (
        "/proc/self/mountinfo",
        "26 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw\n\
         27 26 0:23 / /proc rw - proc proc rw\n30 26 259:2 / /var/snap rw - ext4 /dev/nvme0n1p2 rw\n",
    ),
    ("/sys/block/nvme0n1/stat", "10 0 200 5 20 0 400 9 0 0 0 0 0 0 0"),
    ("/sys/block/nvme0n1/device/state", "live"),
    ("/sys/block/sda/device/state", "running"),
    ("/sys/block/sda/device/ioerr_cnt", "0x1f"),
    ("/sys/block/loop0/stat", "1 1 1 1 1 1 1 1"),
    ("/sys/class/power_supply/AC/type", "Mains"),
    ("/sys/class/power_supply/BAT0/type", "Battery"),
    ("/sys/class/power_supply/BAT0/status", "Discharging"),
    ("/sys/class/power_supply/BAT0/energy_now", "30000000"),
    ("/sys/class/power_supply/BAT0/energy_full", "40000000"),
    ("/sys/class/power_supply/BAT0/energy_full_design", "50000000"),
    ("/sys/class/power_supply/BAT0/cycle_count", "321"),
    ("/sys/class/power_supply/BAT0/power_now", "8500000"),
    ("/sys/class/power_supply/hidpp_battery_0/type", "Battery"),
    ("/sys/class/power_supply/hidpp_battery_0/scope", "Device"),
    ("/sys/class/power_supply/hidpp_battery_0/capacity", "5"),
    ("/sys/class/thermal/thermal_zone0/type", "x86_pkg_temp"),
    ("/sys/class/thermal/thermal_zone0/temp", "61000"),
    ("/sys/class/thermal/thermal_zone0/trip_point_0_type", "critical"),
    ("/sys/class/thermal/thermal_zone0/trip_point_0_temp", "99000"),
    ("/sys/class/hwmon/hwmon2/name", "nvme"),
    ("/sys/class/hwmon/hwmon2/temp1_input", "43850"),
    (
        "/var/lib/dpkg/status",
        "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n\nPackage: curl\nStatus: install ok installed\nVersion: 8.1\n",
    ),
    ("/run/reboot-required", "*** System restart required ***"),
];

struct Watched {
    folder: tempfile::TempDir,
    collector: Collector,
    memos: BTreeMap<&'static str, Vec<u8>>,
    looks: u64,
}

impl Watched {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in LAPTOP {
            put(folder.path(), path, text.as_bytes());
        }
        let collector = Collector::new(&Root::new(folder.path()), Ownership::Company, |_| None);
        Self {
            folder,
            collector,
            memos: BTreeMap::new(),
            looks: 0,
        }
    }

    fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        put(self.folder.path(), path, text.as_ref());
    }

    /// A look a minute after the one before.
    fn look(&mut self) -> Look {
        let due = Metric::ALL.iter().copied().collect();
        self.looks += 1;
        let look = self.collector.look(LookAt {
            now: Timestamp::from_unix_seconds(NOON + 60 * self.looks as i64),
            since_boot: Duration::from_secs(1000 + 60 * self.looks),
            due: &due,
        });
        self.memos.extend(look.memos.clone());
        look
    }

    /// The agent starts anew with the notes that it left.
    fn restart(&mut self) {
        let memos = self.memos.clone();
        self.collector = Collector::new(&Root::new(self.folder.path()), Ownership::Company, |name| {
            memos.get(name).cloned()
        });
    }
}

fn put(folder: &Path, path: &str, bytes: &[u8]) {
    let file = folder.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(file.parent().expect("it lies in a folder")).expect("it is made");
    std::fs::write(file, bytes).expect("it writes");
}

fn value(look: &Look, metric: Metric) -> Option<f64> {
    let mut found = look.readings.iter().filter(|reading| reading.metric == metric);
    let value = found.next().map(|reading| reading.value);
    assert!(found.next().is_none(), "{metric:?} was read twice");
    value
}

fn labeled(look: &Look, metric: Metric) -> BTreeMap<String, f64> {
    let found = look.readings.iter().filter(|reading| reading.metric == metric);
    found
        .map(|reading| {
            let label = reading.label.as_ref().expect("it has a label");
            (label.to_string(), reading.value)
        })
        .collect()
}

/// Kinds and attributes of what happened, as text.
fn happened(look: &Look) -> Vec<String> {
    let one = |happening: &Happening| {
        let attributes = happening
            .attributes
            .iter()
            .map(|(name, value)| format!(" {name}={value}"));
        format!("{}{}", happening.kind.as_str(), attributes.collect::<String>())
    };
    look.happenings.iter().map(one).collect()
}

fn close(found: Option<f64>, expected: f64) -> bool {
    found.is_some_and(|found| (found - expected).abs() < 1e-9)
}

#[test]
fn a_laptop_is_read_as_it_is() {
    let mut laptop = Watched::new();
    let look = laptop.look();
    assert_eq!(
        value(&look, Metric::CpuUsage),
        None,
        "the first look has nothing to compare with"
    );
    for (metric, expected) in [
        (Metric::Load1, 0.52),
        (Metric::Threads, 1234.0),
        (Metric::MemoryAvailable, 4_096_000_000.0),
        (Metric::MemoryUsed, 0.75),
        (Metric::SwapUsed, 512_000_000.0),
        (Metric::BatteryLevel, 0.75),
        (Metric::BatteryHealth, 0.8),
        (Metric::BatteryCycles, 321.0),
        (Metric::BatteryCharging, 0.0),
        (Metric::BatteryPower, 8.5),
        (Metric::NetworkReceived, 5000.0),
        (Metric::NetworkTransmitted, 7000.0),
        (Metric::NetworkErrors, 10.0),
        (Metric::Packages, 2.0),
        (Metric::RebootRequired, 1.0),
    ] {
        assert!(
            close(value(&look, metric), expected),
            "{metric:?}: {:?}",
            value(&look, metric)
        );
    }
    let of = |pairs: &[(&str, f64)]| -> BTreeMap<String, f64> {
        pairs
            .iter()
            .map(|(label, value)| ((*label).to_owned(), *value))
            .collect()
    };
    assert_eq!(labeled(&look, Metric::NetworkSignal), of(&[("wlan0", -56.0)]));
    assert_eq!(labeled(&look, Metric::PressureStalled), of(&[("memory", 0.015)]));
    assert_eq!(
        labeled(&look, Metric::Temperature),
        of(&[("x86_pkg_temp:0", 61.0), ("nvme:2", 43.85)])
    );
    assert_eq!(labeled(&look, Metric::DiskRead), of(&[("nvme0n1", 102_400.0)]));
    assert_eq!(labeled(&look, Metric::DiskErrors), of(&[("sda", 31.0)]));
    assert_eq!(
        labeled(&look, Metric::DiskHealthy),
        of(&[("nvme0n1", 1.0), ("sda", 1.0)])
    );
    assert_eq!(
        labeled(&look, Metric::DiskUsed).into_keys().collect::<Vec<_>>(),
        ["/"]
    );
    assert!(happened(&look).is_empty(), "{:?}", happened(&look));
}

#[test]
fn shares_of_time_and_traffic_are_of_the_time_between_two_looks() {
    let mut laptop = Watched::new();
    laptop.look();
    laptop.put("/proc/stat", "cpu  200 0 100 800 100 0 0 0 0 0\n");
    laptop.put(
        "/proc/net/snmp",
        "Tcp: RtoAlgorithm OutSegs RetransSegs\nTcp: 1 1200 15\n",
    );
    let look = laptop.look();
    assert!(close(value(&look, Metric::CpuUsage), 0.5));
    assert!(close(value(&look, Metric::NetworkLoss), 0.025));
}

#[test]
fn a_crash_is_told_once_across_a_restart_of_the_agent() {
    let mut laptop = Watched::new();
    laptop.put(
        "/var/lib/systemd/coredump/core.old.0.ab.1.1700000000000000.zst",
        "x",
    );
    laptop.look();
    let at = (NOON + 90) * 1_000_000;
    laptop.put(
        &format!("/var/lib/systemd/coredump/core.python3.11.1000.ab12.99.{at}.zst"),
        "x",
    );
    let look = laptop.look();
    assert_eq!(happened(&look), ["crash program=python3.11"]);
    assert_eq!(value(&look, Metric::Crashes), Some(1.0));
    laptop.restart();
    assert!(happened(&laptop.look()).is_empty());
}

#[test]
fn memory_that_ran_out_and_a_kernel_that_crashed_are_told() {
    let mut laptop = Watched::new();
    laptop.look();
    laptop.put("/proc/vmstat", "oom_kill 5\n");
    laptop.put("/sys/fs/pstore/dmesg-efi-1", "Oops");
    assert_eq!(
        happened(&laptop.look()),
        ["kernel_crash record=dmesg-efi-1", "out_of_memory count=3"]
    );
}

#[test]
fn a_start_of_the_system_is_clean_only_if_the_agent_was_told_to_end() {
    let mut laptop = Watched::new();
    laptop.look();
    for (other, farewell, expected) in [
        (
            "11111111-7f1d-4c9e-8a53-0d4b7a1c2e3f",
            false,
            "reboot shutdown=unclean",
        ),
        (
            "22222222-7f1d-4c9e-8a53-0d4b7a1c2e3f",
            true,
            "reboot shutdown=clean",
        ),
    ] {
        if farewell {
            let (name, note) = laptop.collector.farewell();
            laptop.memos.insert(name, note);
        }
        laptop.restart();
        laptop.put("/proc/sys/kernel/random/boot_id", other);
        assert_eq!(happened(&laptop.look()), [expected]);
        assert!(happened(&laptop.look()).is_empty());
    }
}

#[test]
fn a_disk_that_complains_is_told_once_until_it_is_well_again() {
    let mut laptop = Watched::new();
    laptop.look();
    laptop.put("/sys/block/sda/device/state", "offline");
    let look = laptop.look();
    assert_eq!(
        happened(&look),
        ["disk_failing disk=sda reason=its state is offline"]
    );
    assert_eq!(labeled(&look, Metric::DiskHealthy)["sda"], 0.0);
    assert!(happened(&laptop.look()).is_empty());
    laptop.put("/sys/block/sda/device/state", "running");
    laptop.look();
    laptop.put("/sys/block/sda/device/state", "offline");
    assert_eq!(happened(&laptop.look()).len(), 1);
}

#[test]
fn a_part_that_is_too_hot_and_a_battery_that_fails_are_told() {
    let mut laptop = Watched::new();
    laptop.look();
    laptop.put("/sys/class/thermal/thermal_zone0/temp", "99500");
    laptop.put("/sys/class/power_supply/BAT0/energy_full", "20000000");
    assert_eq!(
        happened(&laptop.look()),
        [
            "battery_failing health=0.40",
            "overheated celsius=99.5 sensor=x86_pkg_temp:0"
        ]
    );
    assert!(happened(&laptop.look()).is_empty());
}

#[test]
fn packages_that_came_changed_and_went_are_told() {
    let mut laptop = Watched::new();
    laptop.look();
    let status = "Package: bash\nStatus: install ok installed\nVersion: 5.2-2\n\n\
                  Package: vim\nStatus: install ok installed\nVersion: 9.1\n";
    laptop.put("/var/lib/dpkg/status", status);
    let file = std::fs::File::open(laptop.folder.path().join("var/lib/dpkg/status")).expect("it opens");
    let later = std::time::UNIX_EPOCH + Duration::from_secs(NOON.unsigned_abs());
    file.set_modified(later).expect("it is dated");
    assert_eq!(
        happened(&laptop.look()),
        [
            "app_updated app=bash from=5.2-1 version=5.2-2",
            "app_installed app=vim version=9.1",
            "app_removed app=curl version=8.1"
        ]
    );
}

/// A record of wtmp.
fn record(kind: u16, user: &str) -> Vec<u8> {
    let mut bytes = vec![0; 384];
    bytes[..2].copy_from_slice(&kind.to_le_bytes());
    bytes[44..44 + user.len()].copy_from_slice(user.as_bytes());
    bytes[76..80].copy_from_slice(b":0\0\0");
    bytes[340..344].copy_from_slice(&u32::try_from(NOON).expect("before 2106").to_le_bytes());
    bytes
}

#[test]
fn of_a_personal_device_it_is_told_that_somebody_logged_in_and_not_who() {
    let mut phone = Watched::new();
    phone.collector.ownership = Ownership::Personal;
    phone.put("/var/log/wtmp", record(7, "before"));
    phone.look();
    phone.put("/var/log/wtmp", [record(7, "before"), record(7, "mia")].concat());
    assert_eq!(happened(&phone.look()), ["login"]);
}

#[test]
fn logins_are_told_and_failures_counted() {
    let mut laptop = Watched::new();
    laptop.put("/var/log/wtmp", record(7, "before"));
    laptop.put("/var/log/btmp", []);
    laptop.look();
    laptop.put(
        "/var/log/wtmp",
        [record(7, "before"), record(2, "reboot"), record(7, "mia")].concat(),
    );
    laptop.put("/var/log/btmp", [record(6, "root"), record(6, "root")].concat());
    assert_eq!(
        happened(&laptop.look()),
        ["login from=:0 user=mia", "login_failed count=2"]
    );
    assert!(happened(&laptop.look()).is_empty());
}

#[test]
fn a_clock_that_was_set_is_told() {
    let mut laptop = Watched::new();
    laptop.look();
    laptop.looks += 60;
    assert!(happened(&laptop.look()).is_empty());
    let due = BTreeSet::new();
    let look = laptop.collector.look(LookAt {
        now: Timestamp::from_unix_seconds(NOON),
        since_boot: Duration::from_secs(1000 + 60 * 63),
        due: &due,
    });
    assert_eq!(happened(&look), ["clock_stepped seconds=-3780"]);
}

#[test]
fn garbage_in_place_of_every_file_reads_as_nothing() {
    for garbage in [
        &b""[..],
        b"\xff\xfe\0",
        b"-1 nan inf 99999999999999999999",
        b"cpu \nTcp: \nTcp: \n: :\n",
    ] {
        let mut laptop = Watched::new();
        for (path, _) in LAPTOP {
            laptop.put(path, garbage);
        }
        laptop.put("/var/log/wtmp", garbage);
        laptop.put("/etc/localtime", garbage);
        laptop.look();
        laptop.look();
        laptop
            .collector
            .utc_offset_seconds(Timestamp::from_unix_seconds(NOON));
    }
}
