//! File systems, what disks carry, and whether they say that they are well.

use std::collections::BTreeSet;

use muster_model::telemetry::{EventKind, LABEL_VALUES_MAX, Metric};

use super::super::facts::is_disk;
use super::super::files::Root;
use super::{Collector, Look, LookAt, read_number, read_text, remember};

const BLOCK: &str = "/sys/block";
const SECTOR_BYTES: f64 = 512.0;
/// File systems on disks of the machine: a network that hangs must not hang the agent.
const LOCAL: [&str; 10] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "bcachefs", "overlay",
];
/// Below this part of a file system that is free, it is full.
const FULL_RATIO: f64 = 0.005;
/// And above this it is full no more.
const ROOM_RATIO: f64 = 0.02;

impl Collector {
    pub(super) fn read_disks(&mut self, at: LookAt<'_>, look: &mut Look) {
        if at.wants(&[Metric::DiskFree, Metric::DiskUsed]) {
            self.read_file_systems(at, look);
        }
        let traffic = at.wants(&[Metric::DiskRead, Metric::DiskWritten, Metric::DiskErrors]);
        let health = at.wants(&[Metric::DiskHealthy, Metric::DiskWear]);
        if !traffic && !health {
            return;
        }
        let disks = self.root.list(BLOCK).into_iter().filter(|name| is_disk(name));
        let disks: Vec<String> = disks.take(LABEL_VALUES_MAX).collect();
        for disk in &disks {
            let folder = format!("{BLOCK}/{disk}");
            if traffic {
                read_traffic(&self.root, &folder, disk, look);
            }
            if health {
                let wear = wear(&self.root, &folder);
                look.read_labeled(Metric::DiskWear, disk, wear);
                let complaint = complaint(&self.root, &folder, disk);
                look.read_labeled(
                    Metric::DiskHealthy,
                    disk,
                    f64::from(u8::from(complaint.is_none())),
                );
                match complaint {
                    None => {
                        self.seen.failing.remove(disk);
                    }
                    Some(reason) => {
                        if remember(&mut self.seen.failing, disk) {
                            look.happened(
                                EventKind::DiskFailing,
                                at.now,
                                [("disk", disk.clone()), ("reason", reason)],
                            );
                        }
                    }
                }
            }
        }
    }

    fn read_file_systems(&mut self, at: LookAt<'_>, look: &mut Look) {
        for place in mounts(&read_text(&self.root, "/proc/self/mountinfo")) {
            let Some((size, free)) = self.root.room(&place) else {
                continue;
            };
            let (size, free) = (size as f64, free as f64);
            if size <= 0.0 {
                continue;
            }
            look.read_labeled(Metric::DiskFree, &place, free);
            look.read_labeled(Metric::DiskUsed, &place, (1.0 - free / size).clamp(0.0, 1.0));
            if free / size > ROOM_RATIO {
                self.seen.full.remove(&place);
            } else if free / size < FULL_RATIO && remember(&mut self.seen.full, &place) {
                look.happened(EventKind::DiskFull, at.now, [("disk", place)]);
            }
        }
    }
}

/// Where local file systems are mounted, each once (proc_pid_mountinfo(5)).
fn mounts(text: &str) -> Vec<String> {
    let mut devices = BTreeSet::new();
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        let (number, place, options) = (*fields.get(2)?, *fields.get(4)?, *fields.get(5)?);
        let kind = after.split(' ').next()?;
        let is_writable = options.split(',').all(|option| option != "ro");
        let is_wanted = LOCAL.contains(&kind) && is_writable && !place.contains('\\');
        (is_wanted && devices.insert(number.to_owned())).then(|| place.to_owned())
    };
    text.lines().filter_map(mount).take(LABEL_VALUES_MAX).collect()
}

/// Fields of `/sys/block/*/stat` (kernel documentation, block/stat).
fn read_traffic(root: &Root, folder: &str, disk: &str, look: &mut Look) {
    let stat = root.read_line(&format!("{folder}/stat")).unwrap_or_default();
    let fields: Vec<f64> = stat
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let bytes = |at: usize| fields.get(at).map(|sectors| sectors * SECTOR_BYTES);
    look.read_labeled(Metric::DiskRead, disk, bytes(2));
    look.read_labeled(Metric::DiskWritten, disk, bytes(6));
    let errors = root.read_line(&format!("{folder}/device/ioerr_cnt"));
    look.read_labeled(Metric::DiskErrors, disk, errors.as_deref().and_then(hexadecimal));
}

fn hexadecimal(text: &str) -> Option<f64> {
    let digits = text.trim().strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok().map(|number| number as f64)
}

/// What a card or a built-in flash says of its life: two steps of ten percent (eMMC 5.0, DEVICE_LIFE_TIME_EST_TYP).
fn wear(root: &Root, folder: &str) -> Option<f64> {
    let text = root.read_line(&format!("{folder}/device/life_time"))?;
    let steps = text.split_whitespace().filter_map(hexadecimal);
    let worst = steps.fold(0.0, f64::max);
    (worst > 0.0).then(|| (worst / 10.0).min(1.0))
}

/// Why a disk is not well, as far as the kernel knows.
fn complaint(root: &Root, folder: &str, disk: &str) -> Option<String> {
    let line = |name: &str| root.read_line(&format!("{folder}/{name}"));
    if let Some(state) = line("device/state").filter(|state| state != "running" && state != "live") {
        return Some(format!("its state is {state}"));
    }
    if let Some(stage) = line("device/pre_eol_info").as_deref().and_then(hexadecimal)
        && stage >= 2.0
    {
        return Some("its spare blocks are nearly used up".to_owned());
    }
    if let Some(missing) = read_number(root, &format!("{folder}/md/degraded"))
        && missing > 0.0
    {
        return Some(format!("{missing:.0} of its members are missing"));
    }
    let errors: f64 = root
        .list("/sys/fs/ext4")
        .iter()
        .filter(|name| name.starts_with(disk))
        .filter_map(|name| read_number(root, &format!("/sys/fs/ext4/{name}/errors_count")))
        .sum();
    (errors > 0.0).then(|| format!("its file system met {errors:.0} errors"))
}
