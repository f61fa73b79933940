//! Where spans go: our own settings, and where they say nothing, the variables that every OpenTelemetry program knows
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use muster_control::App;
use muster_integrations::{Otlp, OtlpHeaders, OtlpOptions};

use crate::config::Options;

/// The server's name in traces.
const SERVICE_NAME: &str = "muster";

/// What the environment says, by name.
struct Variables<'a>(&'a [(String, String)]);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// What is said of traces, or of everything.
    fn of_traces(&self, what: &str) -> Option<&str> {
        self.get(&format!("OTEL_EXPORTER_OTLP_TRACES_{what}"))
            .or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{what}")))
    }
}

/// Makes spans from now on, where a collector is named. It is not asked yet: it may be away.
pub fn turn_on(app: &App, options: &Options, environment: &[(String, String)]) -> Result<()> {
    let variables = Variables(environment);
    let Some(otlp) = otlp_options(options, &variables, &app.node)? else {
        return Ok(());
    };
    let exporter = Otlp::open(&otlp).context("--otlp-endpoint and what belongs to it cannot be used")?;
    let ratio = ratio(options, &variables)?;
    tracing::info!(place = exporter.place(), ratio, "traces are sent to a collector");
    ensure!(
        app.traces.turn_on(Box::new(exporter), ratio),
        "traces were turned on twice"
    );
    Ok(())
}

fn otlp_options(options: &Options, variables: &Variables<'_>, node: &str) -> Result<Option<OtlpOptions>> {
    let is_off = variables
        .get("OTEL_SDK_DISABLED")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variables.get("OTEL_TRACES_EXPORTER") == Some("none");
    let whole = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let named = options.otlp_endpoint.as_deref();
    let endpoint = named.or(whole).or_else(|| variables.of_traces("ENDPOINT"));
    let Some(endpoint) = endpoint.filter(|_| named.is_some() || !is_off) else {
        let others = options.otlp_protocol.is_some()
            || options.otlp_headers_file.is_some()
            || options.otlp_ca_file.is_some()
            || options.trace_sampling.is_some();
        ensure!(
            !others || is_off,
            "the other settings of traces need --otlp-endpoint"
        );
        return Ok(None);
    };
    let protocol = options
        .otlp_protocol
        .as_deref()
        .or_else(|| variables.of_traces("PROTOCOL"));
    let headers = match &options.otlp_headers_file {
        Some(file) => OtlpHeaders::from_lines(&String::from_utf8(read("--otlp-headers-file", file)?)?)
            .context("--otlp-headers-file")?,
        None => OtlpHeaders::from_variable(variables.of_traces("HEADERS").unwrap_or_default())
            .context("OTEL_EXPORTER_OTLP_HEADERS")?,
    };
    let ca_file = options
        .otlp_ca_file
        .clone()
        .or_else(|| variables.of_traces("CERTIFICATE").map(PathBuf::from));
    Ok(Some(OtlpOptions {
        endpoint: endpoint.to_owned(),
        is_whole: named.is_none() && whole.is_some(),
        protocol: protocol.map(str::parse).transpose()?.unwrap_or_default(),
        headers,
        authorities: ca_file.map(|file| read("--otlp-ca-file", &file)).transpose()?,
        service_name: variables
            .get("OTEL_SERVICE_NAME")
            .unwrap_or(SERVICE_NAME)
            .to_owned(),
        service_version: env!("CARGO_PKG_VERSION").to_owned(),
        service_instance: node.to_owned(),
    }))
}

fn read(setting: &str, file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{setting} cannot be read: {}", file.display()))
}

/// The share of the traces that begin here and are kept. Callers decide for theirs, whatever the sampler's name says of parents.
fn ratio(options: &Options, variables: &Variables<'_>) -> Result<f64> {
    let ratio = match (options.trace_sampling, variables.get("OTEL_TRACES_SAMPLER")) {
        (Some(ratio), _) => ratio,
        (None, None | Some("always_on" | "parentbased_always_on")) => 1.0,
        (None, Some("always_off" | "parentbased_always_off")) => 0.0,
        (None, Some("traceidratio" | "parentbased_traceidratio")) => {
            let argument = variables.get("OTEL_TRACES_SAMPLER_ARG").unwrap_or("1");
            argument
                .parse()
                .context("OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1")?
        }
        (None, Some(other)) => bail!("OTEL_TRACES_SAMPLER: there is no sampler {other:?} here"),
    };
    ensure!(
        (0.0..=1.0).contains(&ratio),
        "the share of traces that are kept is a number from 0 to 1"
    );
    Ok(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn of(options: &Options, pairs: &[(&str, &str)]) -> Result<Option<OtlpOptions>> {
        otlp_options(options, &Variables(&said(pairs)), "n1")
    }

    #[test]
    fn nothing_is_sent_unless_somebody_names_a_collector() {
        let none = Options::default();
        assert!(of(&none, &[]).expect("nothing is fine").is_none());
        let named = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
        assert!(of(&none, &named).expect("a collector").is_some());
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert!(of(&none, &[named[0], off]).expect("it is off").is_none());
        }
        let alone = Options {
            trace_sampling: Some(0.5),
            ..Options::default()
        };
        assert!(of(&alone, &[]).is_err());
    }

    #[test]
    fn our_own_settings_are_stronger_than_the_variables_of_all() {
        let options = Options {
            otlp_endpoint: Some("http://own:4317".to_owned()),
            otlp_protocol: Some("grpc".to_owned()),
            ..Options::default()
        };
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_SERVICE_NAME", "mdm"),
        ];
        let otlp = of(&options, &variables).expect("it is whole").expect("it is on");
        assert_eq!(
            (otlp.endpoint.as_str(), otlp.service_name.as_str()),
            ("http://own:4317", "mdm")
        );
        assert_eq!(otlp.protocol, muster_integrations::OtlpProtocol::Grpc);
        let wrong = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ];
        assert!(of(&Options::default(), &wrong).is_err());
    }

    #[test]
    fn samplers_are_read_by_their_names() {
        let of = |pairs: &[(&str, &str)]| ratio(&Options::default(), &Variables(&said(pairs)));
        assert_eq!(of(&[]).ok(), Some(1.0));
        assert_eq!(of(&[("OTEL_TRACES_SAMPLER", "always_off")]).ok(), Some(0.0));
        let by_ratio = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        assert_eq!(
            of(&[by_ratio, ("OTEL_TRACES_SAMPLER_ARG", "0.25")]).ok(),
            Some(0.25)
        );
        assert!(of(&[by_ratio, ("OTEL_TRACES_SAMPLER_ARG", "2")]).is_err());
        assert!(of(&[("OTEL_TRACES_SAMPLER", "xray")]).is_err());
    }
}
