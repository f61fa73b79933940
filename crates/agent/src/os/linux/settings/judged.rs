//! The owning programs judge what settings write: each is run on a machine's own files, in a root folder of its own where it
//! knows no other way.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use muster_model::report::SettingState;
use serde_json::{Value, json};

use super::test_machine::TestMachine;

const FOLDERS: [&str; 5] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/lib/systemd"];

/// Where a program is; its absence is said, and costs the rest of the test.
fn find(program: &str) -> Option<PathBuf> {
    let path = FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file());
    if path.is_none() {
        println!("SKIPPED {program}: not installed");
    }
    path
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs that are not ours judge the files"
)]
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C");
    command
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // A program may end without reading its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Copies a file and the libraries that it names to the same places on the machine.
fn bring(machine: &TestMachine, path: &Path) {
    let libraries = said(&run(command(Path::new("/usr/bin/ldd")).arg(path), ""));
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from);
    for file in libraries.chain([path.to_owned()]) {
        let copy = machine.path(file.to_str().unwrap().trim_end_matches(':'));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        if !copy.exists() {
            std::fs::copy(file, copy).unwrap();
        }
    }
}

/// Runs a program that sees the machine's folder as its whole file system.
fn run_inside(machine: &TestMachine, program: &str, arguments: &[&str], input: &str) -> Option<Output> {
    let path = find(program)?;
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED {program}: only root can give it a root folder");
        return None;
    }
    bring(machine, &path);
    let mut chroot = command(Path::new("/usr/sbin/chroot"));
    Some(run(
        chroot.arg(machine.path("/")).arg(path).args(arguments),
        input,
    ))
}

fn verified(machine: &TestMachine, policy: Value) -> bool {
    let reports = machine.apply(policy);
    reports
        .values()
        .all(|report| report.state == SettingState::Verified)
}

/// What sshd does for a connection: root login, and both ways of passwords.
fn sshd_for(machine: &TestMachine, connection: &str) -> Option<[String; 3]> {
    let output = run_inside(
        machine,
        "sshd",
        &["-T", "-h", "/etc/ssh/key", "-C", connection],
        "",
    )?;
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let words = [
        "permitrootlogin ",
        "passwordauthentication ",
        "kbdinteractiveauthentication ",
    ];
    let value = |word: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(word))
            .unwrap()
            .to_owned()
    };
    Some(words.map(value))
}

#[test]
fn sshd_agrees_with_what_is_reported() {
    const INCLUDE: &str = "Include /etc/ssh/sshd_config.d/*.conf\n";
    let later =
        "Match User root\n PermitRootLogin yes\nMatch Address 10.0.0.0/8\n PasswordAuthentication yes\n";
    for (main, other, expected) in [
        (format!("{INCLUDE}UsePAM yes\nPermitRootLogin yes\n"), "", true),
        (format!("PermitRootLogin yes\n{later}"), "", true),
        (format!("{INCLUDE}{later}"), "PermitRootLogin yes\n", true),
        (
            INCLUDE.to_owned(),
            "Match Address 10.0.0.0/8\n PermitRootLogin yes\n",
            false,
        ),
        (
            INCLUDE.to_owned(),
            "Match User root\n KbdInteractiveAuthentication yes\n",
            false,
        ),
        (format!("Match User x\n{INCLUDE}"), "", true),
    ] {
        let machine = TestMachine::new()
            .with(
                "/etc/passwd",
                "root:x:0:0::/root:/bin/sh\nsshd:x:100:100::/run/sshd:/bin/false\nada:x:9:9::/:/\n",
            )
            .with("/etc/ssh/sshd_config", &main)
            .with("/etc/ssh/sshd_config.d/00-a.conf", other);
        std::fs::create_dir_all(machine.path("/run/sshd")).unwrap();
        std::fs::create_dir_all(machine.path("/dev")).unwrap();
        std::fs::write(machine.path("/dev/null"), "").unwrap();
        let Some(keygen) = find("ssh-keygen") else { return };
        let key = machine.path("/etc/ssh/key");
        let made = run(
            command(&keygen)
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(key),
            "",
        );
        assert!(made.status.success(), "{}", said(&made));
        let is_verified = verified(
            &machine,
            json!({"ssh.root_login": "deny", "ssh.password_authentication": false}),
        );
        assert_eq!(is_verified, expected, "{main}{other}");
        let mut refused_for_all = true;
        for connection in [
            "user=root,host=h,addr=192.0.2.1",
            "user=root,host=h,addr=10.0.0.1",
            "user=ada,host=h,addr=10.0.0.1",
        ] {
            let Some(found) = sshd_for(&machine, connection) else {
                return;
            };
            refused_for_all &= found.iter().all(|word| word == "no");
        }
        assert_eq!(refused_for_all, expected, "sshd reads {main}{other}");
    }
}

#[test]
fn both_readers_of_sysctl_agree_with_what_is_reported() {
    for (other, expected) in [
        (
            (
                "/usr/lib/sysctl.d/99-x.conf",
                "kernel.kptr_restrict = 0\nfs.suid_dumpable=1\n",
            ),
            true,
        ),
        (("/etc/sysctl.d/zzz.conf", "kernel/kptr_restrict = 0\n"), false),
    ] {
        for (reader, arguments) in [("sysctl", &["--system"][..]), ("systemd-sysctl", &[])] {
            let machine = TestMachine::new().with(other.0, other.1);
            let parameters = [
                "kernel/kptr_restrict",
                "fs/suid_dumpable",
                "net/ipv4/conf/all/rp_filter",
            ];
            for parameter in parameters {
                machine.put(&format!("/proc/sys/{parameter}"), "7\n");
            }
            let is_verified = verified(&machine, json!({"kernel.hardening": "strict"}));
            assert_eq!(is_verified, expected);
            if run_inside(&machine, reader, arguments, "").is_none() {
                continue;
            }
            let value = |parameter: &str| machine.text(&format!("/proc/sys/{parameter}")).trim().to_owned();
            let restrict = if expected { "2" } else { "0" };
            assert_eq!(parameters.map(value), [restrict, "0", "2"], "{reader}");
        }
    }
}

#[test]
fn modprobe_reads_the_refusals() {
    let machine = TestMachine::new();
    assert!(verified(
        &machine,
        json!({"kernel.modules_blocked": ["dccp", "n-hdlc"], "usb.storage": "deny", "camera.allowed": false})
    ));
    let Some(output) = run_inside(&machine, "modprobe", &["--showconfig"], "") else {
        return;
    };
    for module in ["dccp", "n_hdlc", "usb_storage", "uas", "uvcvideo"] {
        assert!(
            said(&output).contains(&format!("install {module} /bin/false\n")),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn pwquality_refuses_what_the_policy_refuses() {
    let policy = json!({"passcode.min_length": 14, "passcode.complexity": "complex"});
    let machine = TestMachine::new().with("/etc/security/pwquality.conf", "dictcheck = 0\n");
    let accepts = |password: &str| {
        Some(
            run_inside(&machine, "pwscore", &[], &format!("{password}\n"))?
                .status
                .success(),
        )
    };
    let Some(before) = accepts("aB3$xyzw9Q") else {
        return;
    };
    machine.apply(policy);
    assert_eq!(
        (
            before,
            accepts("aB3$xyzw9Q"),
            accepts("abcdzyxwqpontlrmkv"),
            accepts("aB3$xyzw9Qm!tR5kq")
        ),
        (true, Some(false), Some(false), Some(true))
    );
}

#[test]
fn pam_locks_the_account_after_as_many_failures() {
    let stack = "auth\t[success=1 default=ignore]\tpam_unix.so nodelay\nauth\trequisite\tpam_deny.so\nauth\trequired\tpam_permit.so\n";
    let machine = TestMachine::new()
        .with("/etc/passwd", "root:x:0:0::/:/bin/sh\nada:x:1000:1000::/:/bin/sh\n")
        .with("/etc/group", "ada:x:1000:\n")
        // crypt(3), SHA-512: the password is `correct`.
        .with("/etc/shadow", &format!("ada:{}:19000:0:99999:7:::\n", hashed("correct")))
        .with("/etc/pam.d/common-auth", stack)
        .with("/etc/pam.d/common-account", "account\trequired\tpam_unix.so\n")
        .with("/etc/pam.d/door", "@include common-auth\n@include common-account\n");
    for folder in ["lib", "lib64"] {
        std::fs::create_dir_all(machine.path(&format!("/usr/{folder}"))).unwrap();
        machine.link(&format!("/{folder}"), &format!("usr/{folder}"));
    }
    machine.apply(json!({"passcode.max_failed_attempts": 3}));
    let libraries = run(
        command(Path::new("/usr/bin/find")).args(["/usr/lib", "-name", "pam_faillock.so"]),
        "",
    );
    let Some(folder) = said(&libraries)
        .lines()
        .next()
        .map(|path| Path::new(path).parent().unwrap().to_owned())
    else {
        println!("SKIPPED pam_faillock: not installed");
        return;
    };
    for module in ["pam_unix.so", "pam_faillock.so", "pam_deny.so", "pam_permit.so"] {
        bring(&machine, &folder.join(module));
    }
    machine.put(
        "/etc/nsswitch.conf",
        "passwd: files\nshadow: files\ngroup: files\n",
    );
    std::fs::create_dir_all(machine.path("/var/run/faillock")).unwrap();
    let opens = |password: &str| {
        let output = run_inside(
            &machine,
            "pamtester",
            &["door", "ada", "authenticate"],
            &format!("{password}\n"),
        )?;
        Some((output.status.success(), said(&output)))
    };
    let Some((opened, words)) = opens("correct") else {
        return;
    };
    assert!(opened, "{words}");
    for _ in 0..3 {
        assert!(!opens("wrong").unwrap().0);
    }
    let (opened, words) = opens("correct").unwrap();
    assert!(!opened, "the account is open after three failures: {words}");
}

fn hashed(password: &str) -> String {
    let output = run(
        command(Path::new("/usr/bin/openssl")).args(["passwd", "-6", "-salt", "salt", password]),
        "",
    );
    said(&output).trim().to_owned()
}

#[test]
fn network_manager_reads_the_key_files() {
    let Some(nmcli) = find("nmcli") else { return };
    let machine = TestMachine::new().with("/etc/muster-agent/network/device.pem", "x");
    let policy = json!({
        "wifi.networks": [
            {"ssid": "Gäste; [x]", "security": "wpa-psk", "passphrase": "  correct \\ horse"},
            {"ssid": "Corp", "security": "wpa-eap", "identity": "device", "passphrase": "secret", "eap": "peap"},
        ],
        "vpn.profiles": [
            {"name": "Wire", "type": "wireguard", "server": "fd00::1", "addresses": ["10.9.0.7/32", "fd00::7/128"],
             "public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "always_on": true},
            {"name": "Field", "type": "ikev2", "server": "gw.example", "remote_id": "gw"},
        ],
    });
    machine.apply(policy);
    let folder = machine.path("/etc/NetworkManager/system-connections");
    let mut all = String::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let output = run(
            command(&nmcli).args(["--offline", "connection", "modify", "connection.zone", "x"]),
            &text,
        );
        assert!(output.status.success(), "{text}\n{}", said(&output));
        all.push_str(&said(&output));
    }
    for expected in [
        "psk=\\s\\scorrect \\\\ horse\n",
        "ssid=71;195;164;115;116;101;59;32;91;120;93;\n",
        "key-mgmt=wpa-eap\n",
        "endpoint=[fd00::1]:51820\n",
        "allowed-ips=0.0.0.0/0;::/0;\n",
        "address1=fd00::7/128\n",
        "service-type=org.freedesktop.NetworkManager.strongswan\n",
    ] {
        let plain = all.replace("ssid=Gäste; [x]", "ssid=71;195;164;115;116;101;59;32;91;120;93;");
        assert!(plain.contains(expected), "{expected} is not in\n{all}");
    }
}

#[test]
fn apt_reads_its_configuration_pins_and_the_units_arguments() {
    let Some(apt_config) = find("apt-config") else {
        return;
    };
    let status = "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\nArchitecture: all\nMaintainer: x\nDescription: x\n\n";
    let machine = TestMachine::new().with("/var/lib/dpkg/status", status).with(
        "/etc/apt/apt.conf.d/10-x",
        "APT::Get::AllowUnauthenticated \"true\";\n",
    );
    machine.apply(json!({"apps.unknown_sources": false,
        "apps.required": [{"id": "bash", "version": "5.2-1"}, {"id": "muster-no-such-package"}]}));
    let root = format!("Dir={}", machine.path("/").display());
    let state = format!(
        "Dir::State::status={}",
        machine.path("/var/lib/dpkg/status").display()
    );
    let conf = machine.path("/apt.conf");
    std::fs::write(&conf, format!("Dir \"{}\";\n", machine.path("/").display())).unwrap();
    let dump = run(command(&apt_config).arg("dump").env("APT_CONFIG", &conf), "");
    assert!(
        said(&dump).contains("APT::Get::AllowUnauthenticated \"false\""),
        "{}",
        said(&dump)
    );
    let cache = Path::new("/usr/bin/apt-cache");
    let policy = run(
        command(cache).args(["-o", &root, "-o", &state, "policy", "bash"]),
        "",
    );
    assert!(said(&policy).contains("5.2-1 1001"), "{}", said(&policy));
    let unit = machine.text("/etc/systemd/system/muster-apps.service");
    let line = unit.lines().rfind(|line| line.starts_with("ExecStart=")).unwrap();
    let mut words = line.trim_start_matches("ExecStart=").split(' ');
    let mut install = command(Path::new(words.next().unwrap()));
    std::fs::create_dir_all(machine.path("/var/lib/apt/lists/partial")).unwrap();
    std::fs::create_dir_all(machine.path("/var/cache/apt/archives/partial")).unwrap();
    let output = run(
        install
            .args(["--simulate", "-o", &root, "-o", &state])
            .args(words),
        "",
    );
    assert!(
        said(&output).contains("Unable to locate package muster-no-such-package"),
        "{}",
        said(&output)
    );
}

#[test]
fn systemd_takes_the_deadline_and_usbguard_the_rules() {
    let machine = TestMachine::new().with(
        "/etc/usbguard/usbguard-daemon.conf",
        "RuleFile=/etc/usbguard/rules.conf\n",
    );
    machine.apply(
        json!({"usb.data": "deny", "os.update.enforce": {"version": "99", "deadline": "2099-01-02T18:00:00Z"},
        "os.update.window": {"start": "22:30", "end": "04:00"}}),
    );
    if let Some(analyze) = find("systemd-analyze") {
        let timer = machine.text("/etc/systemd/system/muster-update.timer");
        let calendars: Vec<_> = timer
            .lines()
            .filter_map(|line| line.strip_prefix("OnCalendar="))
            .collect();
        assert_eq!(calendars.len(), 2);
        for calendar in calendars {
            let output = run(command(&analyze).args(["calendar", calendar]), "");
            assert!(output.status.success(), "{}", said(&output));
        }
    }
    if let Some(parser) = find("usbguard-rule-parser") {
        let rules = machine.text("/etc/usbguard/rules.d/00-muster.conf");
        let rules: String = rules
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect();
        machine.put("/rules", &rules);
        let output = run(command(&parser).arg("-f").arg(machine.path("/rules")), "");
        assert!(
            output.status.success() && said(&output).matches("OUTPUT:").count() == 3,
            "{}",
            said(&output)
        );
    }
}

#[test]
fn fapolicyd_loads_every_rule() {
    const MAGIC: &str = "/usr/share/fapolicyd/fapolicyd-magic.mgc";
    let configuration = "permissive = 0\nuid = root\ngid = root\ntrust = file\nintegrity = none\n";
    let machine = TestMachine::new()
        .with("/etc/fapolicyd/fapolicyd.conf", configuration)
        .with("/etc/passwd", "root:x:0:0::/:/bin/sh\n")
        .with("/etc/group", "root:x:0:\n");
    machine.apply(json!({"apps.blocked": ["/usr/bin/nc"], "apps.allowed": ["/usr/bin/bash", "/opt/app/"]}));
    let rules = ["00-muster-blocked", "01-muster-allowed"]
        .map(|name| machine.text(&format!("/etc/fapolicyd/rules.d/{name}.rules")))
        .concat();
    // As fagenrules puts them together: without comments.
    let lines: Vec<&str> = rules.lines().filter(|line| !line.starts_with('#')).collect();
    machine.put(
        "/etc/fapolicyd/compiled.rules",
        &format!("{}\n", lines.join("\n")),
    );
    if Path::new(MAGIC).exists() {
        bring(&machine, Path::new(MAGIC));
    }
    // Without /run/fapolicyd it ends before it asks the kernel for anything.
    let Some(output) = run_inside(&machine, "fapolicyd", &["--debug-deny"], "") else {
        return;
    };
    assert!(
        said(&output).contains(&format!("Loaded {} rules", lines.len())),
        "{}",
        said(&output)
    );
}

#[test]
fn nftables_takes_the_ruleset() {
    let (Some(unshare), Some(nft)) = (find("unshare"), find("nft")) else {
        return;
    };
    let machine = TestMachine::new();
    machine.apply(json!({"firewall.enabled": true, "firewall.block_inbound": true}));
    // In a network of its own, because even a check asks the kernel.
    let rules = machine.path("/etc/nftables.d/muster.nft");
    let listed = run(
        command(&unshare)
            .arg("--net")
            .arg(&nft)
            .args(["--check", "--file"])
            .arg(rules),
        "",
    );
    if said(&listed).contains("Operation not permitted") {
        println!("SKIPPED nft: this process may not make a network of its own");
        return;
    }
    assert!(listed.status.success(), "{}", said(&listed));
}

#[test]
fn the_bundle_of_trusted_roots_gets_the_authority() {
    let Some(update) = find("update-ca-certificates") else {
        return;
    };
    let certificate = std::fs::read_dir("/usr/share/ca-certificates/mozilla")
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let pem = std::fs::read_to_string(certificate).unwrap();
    let machine = TestMachine::new();
    machine.apply(json!({"certs.trusted_roots": [pem]}));
    for folder in ["/etc/ssl/certs", "/hooks", "/usr/share/ca-certificates"] {
        std::fs::create_dir_all(machine.path(folder)).unwrap();
    }
    machine.put("/etc/ca-certificates.conf", "");
    let mut command = command(&update);
    for (option, path) in [
        ("--certsconf", "/etc/ca-certificates.conf"),
        ("--certsdir", "/usr/share/ca-certificates"),
        ("--localcertsdir", "/usr/local/share/ca-certificates"),
        ("--etccertsdir", "/etc/ssl/certs"),
        ("--hooksdir", "/hooks"),
    ] {
        command.arg(option).arg(machine.path(path));
    }
    let output = run(&mut command, "");
    assert!(output.status.success(), "{}", said(&output));
    let bundle = machine.text("/etc/ssl/certs/ca-certificates.crt");
    assert!(bundle.contains(pem.lines().nth(3).unwrap()), "{}", said(&output));
}

#[test]
fn dconf_compiles_and_answers_the_value() {
    let Some(dconf) = find("dconf") else { return };
    let machine = TestMachine::new();
    machine.apply(json!({"screen_lock.max_idle_seconds": 300}));
    let databases = machine.path("/etc/dconf/db");
    let output = run(command(&dconf).arg("update").arg(&databases), "");
    assert!(output.status.success(), "{}", said(&output));
    let compiled = std::fs::read_dir(&databases)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let profile: String = compiled
        .filter(|path| path.is_file())
        .map(|path| format!("file-db:{}\n", path.display()))
        .collect();
    machine.put("/profile", &profile);
    let mut read = command(&dconf);
    read.args(["read", "/org/gnome/desktop/session/idle-delay"]);
    read.env("DCONF_PROFILE", machine.path("/profile"))
        .env("HOME", machine.path("/"));
    let output = run(&mut read, "");
    assert_eq!(said(&output).trim(), "uint32 300", "{profile}");
}

#[test]
fn a_new_account_gets_the_age_of_passwords() {
    let machine = TestMachine::new()
        .with(
            "/etc/login.defs",
            "PASS_MAX_DAYS 99999\nUID_MIN 1000\nUID_MAX 60000\n",
        )
        .with("/etc/passwd", "root:x:0:0::/:/bin/sh\n")
        .with("/etc/group", "root:x:0:\n")
        .with("/etc/shadow", "root:*:19000:0:99999:7:::\n")
        .with("/etc/gshadow", "root:*::\n");
    machine.apply(json!({"passcode.max_age_days": 90}));
    let arguments = [
        "--no-create-home",
        "--no-user-group",
        "--gid",
        "0",
        "--no-log-init",
        "--shell",
        "/bin/sh",
        "ada",
    ];
    let Some(output) = run_inside(&machine, "useradd", &arguments, "") else {
        return;
    };
    let shadow = machine.text("/etc/shadow");
    let line = shadow
        .lines()
        .find(|line| line.starts_with("ada:"))
        .unwrap_or_else(|| panic!("{}", said(&output)));
    assert_eq!(line.split(':').nth(4), Some("90"), "{line}");
}

#[test]
fn a_luks_container_is_what_the_facts_call_encrypted() {
    let Some(cryptsetup) = find("cryptsetup") else {
        return;
    };
    let machine = TestMachine::new();
    let disk = machine.path("/disk.img");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(24 * 1024 * 1024)
        .unwrap();
    let format = [
        "luksFormat",
        "--batch-mode",
        "--type",
        "luks2",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        "--key-file",
        "-",
    ];
    let output = run(command(&cryptsetup).args(format).arg(&disk), "correct horse");
    if !output.status.success() && said(&output).contains("not permitted") {
        println!("SKIPPED cryptsetup: this kernel gives it no cipher");
        return;
    }
    assert!(output.status.success(), "{}", said(&output));
    let uuid = said(&run(command(&cryptsetup).arg("luksUUID").arg(&disk), ""));
    let uuid = uuid.trim().replace('-', "");
    assert_eq!(uuid.len(), 32, "cryptsetup names no container: {uuid}");
    // The kernel names an open container so (cryptsetup, device-mapper UUID); the image stands for the disk sda.
    for (name, expected) in [
        (format!("CRYPT-LUKS2-{uuid}-root"), true),
        (format!("LVM-{uuid}"), false),
    ] {
        machine.put("/sys/block/sda/size", "49152\n");
        machine.put("/sys/block/sda/removable", "0\n");
        machine.put("/sys/block/sda/holders/dm-0", "");
        machine.put("/sys/block/dm-0/dm/uuid", &format!("{name}\n"));
        machine.put("/sys/block/dm-0/dev", "254:0\n");
        machine.put(
            "/proc/self/mountinfo",
            "22 1 254:0 / / rw - ext4 /dev/mapper/root rw\n",
        );
        let report = &machine.apply(json!({"disk_encryption.required": true}))["disk_encryption.required"];
        assert_eq!(report.state == SettingState::Verified, expected, "{report:?}");
    }
}
