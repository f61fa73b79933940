//! `proxy.global`: environment(5) variables for every session, and GNOME's proxy through locked dconf keys.
//!
//! A script (`pac`) can only be given to GNOME; programs that read the environment go without a proxy then.

use muster_model::settings::SettingValue;

use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::FileError;
use super::super::formats::key_value::{self, Style};
use super::dconf;

const FILE: &str = "/etc/environment";
const VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];
const EXEMPT_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// The machine itself is never behind the proxy.
const EXEMPT: &str = "localhost,127.0.0.1,::1";
const MODE: &str = "system/proxy/mode";
const PORT_DEFAULT: i64 = 8080;

/// What is asked for, checked for characters that would mean something else in a file.
struct Proxy<'v> {
    server: Option<(&'v str, i64)>,
    script: Option<&'v str>,
    /// Hosts that are reached without it, joined by commas.
    exempt: String,
}

impl<'v> Proxy<'v> {
    fn parse(value: &'v SettingValue) -> Result<Proxy<'v>, String> {
        if !matches!(value, SettingValue::Object(_)) {
            return Err("the value is not of the setting's kind".to_owned());
        }
        let words = |name: &str| {
            super::member(value, name)
                .and_then(super::text)
                .filter(|text| !text.is_empty())
        };
        let port = super::member(value, "port")
            .and_then(super::int)
            .unwrap_or(PORT_DEFAULT);
        let (host, script) = (words("host"), words("pac"));
        let host_fits = |host: &str| {
            host.chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c))
        };
        if host.is_some_and(|host| !host_fits(host)) || !(1..=65_535).contains(&port) {
            return Err("the host or port of the proxy is not one".to_owned());
        }
        let plain = |url: &str| {
            url.chars()
                .all(|c| c.is_ascii_graphic() && !"\"'\\`$".contains(c))
        };
        if script.is_some_and(|url| !plain(url)) {
            return Err("the address of the proxy script holds characters that no URL has".to_owned());
        }
        let bypass = super::member(value, "bypass")
            .and_then(super::list)
            .unwrap_or_default();
        let bypass: Vec<&str> = bypass.iter().filter_map(super::text).collect();
        if bypass.iter().any(|host| {
            !host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_:[]*/".contains(c))
        }) {
            return Err("a host to bypass the proxy for is not one".to_owned());
        }
        let exempt = std::iter::once(EXEMPT)
            .chain(bypass)
            .collect::<Vec<_>>()
            .join(",");
        Ok(Proxy {
            server: host.map(|host| (host, port)),
            script,
            exempt,
        })
    }

    fn url(&self) -> Option<String> {
        self.server.map(|(host, port)| format!("http://{host}:{port}"))
    }

    fn keys(&self) -> Vec<(&'static str, String)> {
        if let Some(script) = self.script {
            return vec![
                (MODE, "'auto'".to_owned()),
                ("system/proxy/autoconfig-url", dconf::quoted(script)),
            ];
        }
        let Some((host, port)) = self.server else {
            return Vec::new();
        };
        vec![
            (MODE, "'manual'".to_owned()),
            ("system/proxy/http/host", dconf::quoted(host)),
            ("system/proxy/http/port", port.to_string()),
            ("system/proxy/https/host", dconf::quoted(host)),
            ("system/proxy/https/port", port.to_string()),
        ]
    }
}

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let proxy = Proxy::parse(value).map_err(Refusal::Failed)?;
    if let Some(url) = proxy.url() {
        let exempt = proxy.exempt.clone();
        plan.edit(FILE, &[], move |text| {
            let set = |text: String, name: &&str| key_value::set(&text, Style::Assignment, name, &url);
            let text = VARIABLES.iter().fold(text.to_owned(), set);
            Ok(EXEMPT_VARIABLES.iter().fold(text, |text, name| {
                key_value::set(&text, Style::Assignment, name, &exempt)
            }))
        });
    }
    if dconf::available(machine) && !proxy.keys().is_empty() {
        dconf::plan(machine, plan, dconf::USER, "proxy", &proxy.keys())?;
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let proxy = match Proxy::parse(value) {
        Ok(proxy) => proxy,
        Err(why) => return Ok(Finding::Missing { observed: None, why }),
    };
    if let Some(url) = proxy.url() {
        let text = machine.root.read(FILE)?.unwrap_or_default();
        let exempt = EXEMPT_VARIABLES.map(|name| (name, proxy.exempt.as_str()));
        for (name, url) in VARIABLES
            .map(|name| (name, url.as_str()))
            .into_iter()
            .chain(exempt)
        {
            let found = key_value::get(&text, Style::Assignment, name);
            if found.as_deref() != Some(url) {
                let found = found.unwrap_or_else(|| "nothing".to_owned());
                return Ok(Finding::Missing {
                    observed: None,
                    why: format!("{FILE} sets {name} to {found}"),
                });
            }
        }
    }
    if !dconf::available(machine) {
        return Ok(match proxy.script {
            Some(_) => Finding::NotExpressible(
                "a proxy script needs a GNOME session, and dconf is not installed".into(),
            ),
            None => Finding::InForce {
                observed: value.clone(),
                note: None,
            },
        });
    }
    if let Some(finding) = dconf::stale(machine, dconf::USER) {
        return Ok(finding);
    }
    for (path, wanted) in proxy.keys() {
        match dconf::effective(machine.root, dconf::USER, path)? {
            Some(found) if found.value == wanted && found.locked => {}
            found => {
                let file = found.map_or_else(|| dconf::USER.file.to_owned(), |found| found.file);
                let why = format!("GNOME's {path} is not the one asked for: {file} decides");
                return Ok(Finding::Missing { observed: None, why });
            }
        }
    }
    let environment = "programs that read the environment use no proxy: a script cannot be named there";
    Ok(match (proxy.script, proxy.server) {
        (Some(_), None) => Finding::Weaker {
            observed: value.clone(),
            why: environment.to_owned(),
        },
        (Some(_) | None, _) => Finding::InForce {
            observed: value.clone(),
            note: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use super::FILE;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "proxy.global";

    #[test]
    fn sessions_get_the_proxy_and_lose_it_again() {
        let machine = TestMachine::new().with(FILE, "PATH=\"/usr/bin\"\n# c\nhttp_proxy=\"http://old:1\"");
        machine.check_lifecycle(
            json!({KEY: {"host": "proxy.example", "port": 3128}}),
            |machine, reports| {
                assert_ne!(reports[KEY].state, SettingState::Failed, "{reports:?}");
                let text = machine.text(FILE);
                assert!(
                    text.starts_with("PATH=\"/usr/bin\"\n# c\nhttp_proxy=http://proxy.example:3128\n"),
                    "{text}"
                );
                assert!(text.contains("no_proxy=localhost,127.0.0.1,::1\n"));
                assert!(
                    machine
                        .text("/etc/dconf/db/local.d/90-muster-proxy")
                        .contains("[system/proxy/http]\nport=3128\n")
                );
            },
        );
    }

    #[test]
    fn an_override_is_found() {
        let machine = TestMachine::new();
        let proxy = json!({KEY: {"host": "proxy.example", "port": 3128}});
        machine.apply(proxy.clone());
        machine.put(FILE, &format!("{}https_proxy=\n", machine.text(FILE)));
        let report = &machine.read_back(proxy)[KEY];
        assert_eq!(report.state, SettingState::Failed);
    }

    #[test]
    fn nothing_can_be_smuggled_into_the_environment() {
        let machine = TestMachine::new();
        let reports = machine.apply_unchecked(json!({KEY: {"host": "x\nLD_PRELOAD=/tmp/x", "port": 1}}));
        assert_eq!(reports[KEY].state, SettingState::Failed);
        assert!(!machine.exists(FILE));
    }
}
