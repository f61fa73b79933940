//! The command line of Muster: a client of the admin API and of nothing else, but for `directory`, which reads LDAP too.
//!
//! The binary flattens [`Globals`] and [`Command`] into its own parser and calls [`run`]. Exit codes: 0 ok, 1 failed,
//! 2 usage, 3 drift where it was asked for. Answers go to standard output, as tables or as the server's JSON; everything else goes to standard error.

mod api;
mod assertion;
mod clock;
mod context;
mod directory_sync;
mod error;
mod folder;
mod key_file;
mod log;
mod log_folder;
mod output;
mod progress;
mod qr;
mod root_file;
mod verbs;
mod yaml;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use api::Api;
pub use context::AdminFile;
pub use error::CliError;
pub use log::{VerifyArgs, VerifyReport, verify_remote};
pub use output::Format;
pub use verbs::log::LogCommand;
pub use verbs::policy_test::{self, PolicyTest, PolicyTestArgs, TestReport};
pub use verbs::tenant::{CreateTenant, TenantCommand};

use output::Printer;
use verbs::{
    access, alert, approver, branding, bundle, client, command, compliance, compliance_token, configuration,
    console_link, context as contexts, device, directory, directory_sync as directories, enrollment, group,
    halt, key, label, login, operation, policy, policy_compile, query, rollout, root, routing, script,
    secret, signal, sink, sso, system, telemetry, token, trust, visit,
};

/// Flags that every verb takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// Address and credentials of an install: its `admin.json`
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_ADMIN_FILE")]
    pub admin_file: Option<PathBuf>,
    /// Use the install that `muster login --name NAME` stored; stronger than --admin-file
    #[arg(long, global = true, value_name = "NAME", env = "MUSTER_CONTEXT")]
    pub context: Option<String>,
    /// How answers are printed
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t = Format::Table,
          env = "MUSTER_OUTPUT")]
    pub output: Format,
    /// No colors: any value but an empty one
    #[arg(long, global = true, env = "NO_COLOR", num_args = 0..=1, require_equals = true,
          default_missing_value = "1", hide_possible_values = true)]
    pub no_color: Option<String>,
    /// Folder above `muster/contexts.toml`
    #[arg(long, global = true, env = "XDG_CONFIG_HOME", hide = true)]
    pub config_home: Option<PathBuf>,
    /// Home folder, for the default of the folder above
    #[arg(long, global = true, env = "HOME", hide = true)]
    pub home: Option<PathBuf>,
    /// The whole program's parser, for shell completion; set by the binary after parsing.
    #[arg(skip)]
    pub program: Option<clap::Command>,
}

/// The verbs.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Store address and credentials of an install, so that other verbs need no flags
    Login(login::LoginArgs),
    /// List, choose or forget stored installs
    #[command(subcommand)]
    Context(contexts::ContextCommand),
    /// Devices: list, details, facts, settings, timeline, quarantine, retirement
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Dynamic groups: who is in them, and why
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Ask the fleet questions: inventory, packages, disks, users, compliance
    #[command(after_help = query::HELP)]
    Query(query::QueryArgs),
    /// Labels of devices from a table
    #[command(subcommand)]
    Label(label::LabelCommand),
    /// Compliance: where the fleet stands, violations, the share of each rule
    #[command(args_conflicts_with_subcommands = true)]
    Compliance {
        #[command(subcommand)]
        command: Option<compliance::ComplianceCommand>,
    },
    /// Telemetry: what devices measured, over time and over the fleet, and what happened on them
    #[command(subcommand)]
    Telemetry(telemetry::TelemetryCommand),
    /// Policies, their versions and bundles, activation
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Policy bundles: build, sign, verify and push them, without the server holding the key
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Keys that live with people and pipelines
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Write the configuration into a folder of files
    #[command(after_help = configuration::EXPORT_HELP)]
    Export(configuration::ExportArgs),
    /// Show what applying a folder of files would change
    #[command(after_help = configuration::PLAN_HELP)]
    Plan(configuration::PlanArgs),
    /// Apply a folder of files: exactly what was planned, or nothing
    #[command(after_help = configuration::APPLY_HELP)]
    Apply(configuration::ApplyArgs),
    /// Rollouts: how an activated policy reaches devices
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// One-shot actions on devices: lock, restart, install, run a script, collect logs, wipe, …
    #[command(subcommand)]
    Command(command::CommandCommand),
    /// Operations on many devices, and those that need approvals: how far they are, who approved
    #[command(subcommand)]
    Operation(operation::OperationCommand),
    /// Approve destructive commands with your own key
    #[command(subcommand)]
    Approver(approver::ApproverCommand),
    /// People and groups of people, as identity providers keep them
    #[command(subcommand)]
    User(directory::UserCommand),
    /// Identity providers: their tokens, what they changed, what was refused
    #[command(subcommand)]
    Scim(directory::ScimCommand),
    /// LDAP directories: bring their people and groups to Muster, from a machine of your own
    #[command(subcommand)]
    Directory(directories::DirectoryCommand),
    /// Alerts: what fires, who is told, silences, rules, destinations
    Alert {
        #[command(subcommand)]
        command: Option<alert::AlertCommand>,
    },
    /// Signals: what security products and identity providers say of devices
    Signal {
        #[command(subcommand)]
        command: Option<signal::SignalCommand>,
    },
    /// Sinks: where the log and events of devices are sent (SIEM), how far they are, what was set aside
    Sink {
        #[command(subcommand)]
        command: Option<sink::SinkCommand>,
    },
    /// Stop what is destructive and not delivered, everywhere, now
    #[command(args_conflicts_with_subcommands = true, after_help = halt::HELP)]
    Halt {
        #[command(flatten)]
        arguments: halt::HaltArgs,
        #[command(subcommand)]
        command: Option<halt::HaltCommand>,
    },
    /// The root document: whose keys devices obey, made and signed offline
    #[command(subcommand)]
    Root(root::RootCommand),
    /// Scripts that devices may run: add, sign, push, list, show and run them
    #[command(subcommand)]
    Script(script::ScriptCommand),
    /// Secrets: which there are, how old they are, their rotation, the store that keeps them
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// One-time enrollment tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Enrollment: how tokens fared, and what a device has to be to get in
    #[command(subcommand)]
    Enrollment(enrollment::EnrollmentCommand),
    /// The transparency log: checkpoint, entries, verification
    #[command(subcommand)]
    Log(LogCommand),
    /// Who may do what: roles, grants, people, sessions, the access review
    #[command(subcommand)]
    Access(access::AccessCommand),
    /// Signing in with a company's identity: connections to identity providers
    #[command(subcommand)]
    Sso(sso::SsoCommand),
    /// Where people of identity providers belong, and who waits for a decision
    #[command(subcommand)]
    Routing(routing::RoutingCommand),
    /// Visits of the operator's people to this tenant: whether they may ask, who is here, what was changed
    #[command(subcommand)]
    Visits(visit::VisitsCommand),
    /// API clients, their scopes and keys
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Trusts: whose tokens are taken instead of a secret (pipelines, pods, your identity provider)
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Make a link that signs a person in to the console, once
    #[command(after_help = console_link::HELP)]
    ConsoleLink(console_link::ConsoleLinkArgs),
    /// How the tenant looks to its own people: name, accent, logo, whom to ask
    #[command(subcommand)]
    Branding(branding::BrandingCommand),
    /// The catalogue of settings that policies can hold
    #[command(after_help = system::SETTINGS_HELP)]
    Settings(system::SettingsArgs),
    /// The fleet in numbers, and what needs a person
    #[command(after_help = system::OVERVIEW_HELP)]
    Overview,
    /// Print a completion script for a shell
    #[command(after_help = system::COMPLETION_HELP)]
    Completion(system::CompletionArgs),
    /// Versions of this program and of the server
    #[command(after_help = system::VERSION_HELP)]
    Version,
}

impl Command {
    /// The data folder of `log verify --data-dir`, which reads the server's own files and is no matter of this library:
    /// the binary answers it before it calls [`run`].
    pub fn local_log_verification(&self) -> Option<&Path> {
        match self {
            Self::Log(LogCommand::Verify(arguments)) => arguments.data_dir.as_deref(),
            _ => None,
        }
    }

    /// The arguments of `policy test`, which needs a control plane and a fleet in this process: the binary answers it before
    /// it calls [`run`].
    pub fn policy_test(&self) -> Option<&PolicyTestArgs> {
        match self {
            Self::Policy(policy::PolicyCommand::Test(arguments)) => Some(arguments),
            _ => None,
        }
    }
}

/// Says on standard error why a verb that the binary runs failed, as [`run`] does; answers the exit code.
pub fn failed(error: &CliError, globals: &Globals) -> ExitCode {
    Printer::new(globals).error(error);
    ExitCode::from(error.exit_code())
}

/// Runs one verb and reports how it went. Never panics, never prompts without a terminal.
pub async fn run(command: Command, globals: Globals) -> ExitCode {
    let printer = Printer::new(&globals);
    let outcome = dispatch(command, &globals, &printer).await;
    ended(outcome, &printer)
}

fn ended(outcome: Result<(), CliError>, printer: &Printer) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the answer has seen enough.
        Err(CliError::Output(source)) if source.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs a verb about tenants.
pub async fn run_tenant(command: TenantCommand, globals: Globals) -> ExitCode {
    let printer = Printer::new(&globals);
    let outcome = match (command, Api::connect(&globals)) {
        // Where root keys are, there may be no network.
        (TenantCommand::SignClosure(sign), _) => verbs::tenant::sign_closure(&sign, &printer),
        (command, Ok(api)) => verbs::tenant::run(command, &api, &globals, &printer).await,
        (_, Err(error)) => Err(error),
    };
    ended(outcome, &printer)
}

/// Makes a tenant through the API; its root document is signed here.
pub async fn create_tenant(create: CreateTenant, globals: Globals) -> ExitCode {
    let printer = Printer::new(&globals);
    let outcome = verbs::tenant::create(&create, &globals, &printer).await;
    ended(outcome, &printer)
}

async fn dispatch(command: Command, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    match command {
        Command::Login(arguments) => login::run(arguments, globals, printer).await,
        Command::Context(command) => contexts::run(command, globals, printer),
        Command::Completion(arguments) => system::completion(&arguments, globals, printer),
        Command::Version => system::version(globals, printer).await,
        Command::Device(command) => device::run(command, &Api::connect(globals)?, printer).await,
        Command::Compliance {
            command: Some(compliance::ComplianceCommand::VerifyToken(arguments)),
        } => compliance_token::verify(&arguments, printer),
        Command::Compliance { command } => compliance::run(command, &Api::connect(globals)?, printer).await,
        Command::Policy(policy::PolicyCommand::Compile(arguments)) if arguments.is_offline() => {
            policy_compile::offline(&arguments, printer)
        }
        Command::Group(command) => group::run(command, &Api::connect(globals)?, printer).await,
        Command::Query(arguments) => query::run(arguments, &Api::connect(globals)?, printer).await,
        Command::Label(command) => label::run(command, &Api::connect(globals)?, printer).await,
        Command::Telemetry(command) => telemetry::run(command, &Api::connect(globals)?, printer).await,
        Command::Policy(command) => policy::run(command, &Api::connect(globals)?, printer).await,
        Command::Bundle(command) => bundle::run(command, globals, printer).await,
        Command::Key(command) => key::run(command, printer),
        Command::Export(arguments) => {
            configuration::export(arguments, &Api::connect(globals)?, printer).await
        }
        Command::Plan(arguments) => configuration::plan(arguments, &Api::connect(globals)?, printer).await,
        Command::Apply(arguments) => configuration::apply(arguments, &Api::connect(globals)?, printer).await,
        Command::Rollout(command) => rollout::run(command, &Api::connect(globals)?, printer).await,
        Command::Command(command) => command::run(command, &Api::connect(globals)?, printer).await,
        Command::Operation(command) => operation::run(command, &Api::connect(globals)?, printer).await,
        Command::Approver(command) => approver::run(command, globals, printer).await,
        Command::User(command) => directory::run_user(command, &Api::connect(globals)?, printer).await,
        Command::Scim(command) => directory::run_scim(command, &Api::connect(globals)?, printer).await,
        Command::Directory(command) => directories::run(command, printer).await,
        Command::Signal { command } => signal::run(command, &Api::connect(globals)?, printer).await,
        Command::Sink { command } => sink::run(command, &Api::connect(globals)?, printer).await,
        Command::Alert { command } => alert::run(command, &Api::connect(globals)?, printer).await,
        Command::Branding(command) => branding::run(command, &Api::connect(globals)?, printer).await,
        Command::Halt { arguments, command } => {
            halt::run(command, arguments, &Api::connect(globals)?, printer).await
        }
        Command::Root(command) => root::run(command, globals, printer).await,
        Command::Script(command) => script::run(command, globals, printer).await,
        Command::Secret(command) => secret::run(command, &Api::connect(globals)?, printer).await,
        Command::Token(command) => token::run(command, &Api::connect(globals)?, printer).await,
        Command::Enrollment(command) => enrollment::run(command, &Api::connect(globals)?, printer).await,
        Command::Log(command) => verbs::log::run(command, globals, printer).await,
        Command::Access(command) => access::run(command, &Api::connect(globals)?, printer).await,
        Command::Sso(command) => sso::run(command, &Api::connect(globals)?, printer).await,
        Command::Routing(command) => routing::run(command, &Api::connect(globals)?, printer).await,
        Command::Visits(command) => visit::run_visits(command, &Api::connect(globals)?, printer).await,
        Command::Client(command) => client::run(command, &Api::connect(globals)?, printer).await,
        Command::Trust(command) => trust::run(command, &Api::connect(globals)?, printer).await,
        Command::ConsoleLink(arguments) => {
            console_link::run(arguments, &Api::connect(globals)?, printer).await
        }
        Command::Settings(arguments) => system::settings(&arguments, &Api::connect(globals)?, printer).await,
        Command::Overview => system::overview(&Api::connect(globals)?, printer).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "muster")]
    struct Program {
        #[command(flatten)]
        globals: Globals,
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Program, clap::Error> {
        Program::try_parse_from(std::iter::once("muster").chain(line.split_whitespace()))
    }

    #[test]
    fn the_parser_contradicts_itself_nowhere() {
        Program::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
                let path = format!("{path} {}", verb.get_name());
                if verb.has_subcommands() {
                    check(verb, &path);
                } else {
                    let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.contains(path.trim()), "`{path}` shows no example of itself");
                }
            }
        }
        check(&Program::command(), "muster");
    }

    #[test]
    fn the_lines_of_the_documentation_parse() {
        for line in [
            "login --device --admin-url https://m:1 --ca-file ca.pem",
            "login --device --admin-file a.json --scope device:read",
            "login --admin-url https://m:1 --ca-file ca.pem --client-id cli_1 --key k.pem",
            "login --admin-url https://m:1 --ca-file ca.pem --client-id cli_1 --exchange-token-file t.jwt",
            "login --admin-url https://m:1 --ca-file ca.pem --client-id cli_1 --exchange-token x",
            "client create ci --scope policy:read --no-secret",
            "client key add cli_1 --generate ci.pem",
            "client key add cli_1 ci.pub",
            "client key add cli_1 --certificate ci-cert.pem",
            "login --admin-url https://m:1 --ca-file ca.pem --client-id cli_1 --key k.pem --certificate c.pem",
            "client key list cli_1",
            "client key remove cli_1 thumb --yes",
            "client key address cli_1 https://ci.example/jwks.json",
            "trust put gh --issuer https://token.actions.githubusercontent.com --audience https://m --client-id cli_1 --require \
             repository=octo/app --require-like sub=repo:octo/app:* --scope policy:write",
            "trust people corp-api --connection corp --audience api://muster --required-scope muster.use",
            "trust list",
            "trust delete gh --yes",
            "alert",
            "alert list --ended --all",
            "alert ack alr_1 --note x",
            "alert silence add --rule r --until 2026-05-04T20:00:00Z --reason move",
            "alert destinations put email --kind email --host m --port 587 --mail-from a@b.c --to d@e.f",
            "alert rules put mine --file rule.json",
            "alert deliveries list --state dead",
            "alert test pagerduty",
            "user list --search ada --state inactive",
            "user show ada@example.com",
            "user groups --all",
            "user members ugr_1",
            "scim status",
            "scim log --refused --limit 20",
            "scim token create entra --days 365",
            "scim token revoke sct_1 --yes",
            "directory sync --config d.toml --dry-run -o json",
            "directory sync --config d.toml --every 15m",
            "directory sync --config d.toml --allow-removals 40 --adopt",
            "directory test --config d.toml",
            "directory example active-directory",
            "signal",
            "signal put okta --kind ssf --issuer https://a.example --jwks-url https://a.example/keys",
            "signal put edr --kind webhook --authentication hmac --field device=/host --verdict ok=pass --devices-by label:edr",
            "signal secret edr --overlap-seconds 0",
            "signal arrivals --limit 5",
            "signal unmatched edr",
            "signal device laptop-7",
            "compliance verify-token t.jwt --jwks k.json --certificate c.pem --audience vpn",
            "sink",
            "sink put siem --kind elastic --url https://es.example.com:9200 --secret-file api-key --only security.*",
            "sink put siem --kind splunk --url https://splunk.example.com:8088 --index mdm --no-acknowledge --secret-file token",
            "sink create siem --kind syslog --host logs.example.com --certificate-file muster.pem --secret-file muster.key",
            "sink put lake --kind s3 --url https://s3.example.com --region eu-1 --access-key-id AK --lock compliance --lock-days 9",
            "sink put siem --kind sentinel --url https://x.example.com --rule dcr-1 --table-stream Custom-Muster_CL --client-id c",
            "sink put bus --kind nats --url tls://nats.example.com:4222 --subject security.mdm --format ocsf",
            "sink test siem",
            "sink pause siem --reason upgrade",
            "sink replay siem --stream log --from 2026-05-04T20:00:00Z",
            "sink dead replay siem --stream log --place 7",
            "sso put-saml corp --metadata idp.xml --subject-attribute oid",
            "sso put-saml corp --metadata idp.xml --directory okta",
            "sso put corp --issuer https://idp.example --client-id c --directory entra --directory-by oid",
            "access grant helpdesk --group admins --source directory",
            "sso put-saml corp --entity-id https://idp.example --sso-url https://idp.example/sso --certificate idp.pem",
            "sso test corp",
            "device list --filter platform:linux -o json",
            "device quarantine list",
            "device decide dev_1 merge",
            "device decide dev_1 accept --yes",
            "device decide dev_1 keep-both",
            "device label laptop-7 department=sales site-",
            "label import labels.csv --dry-run",
            "group create sales --include true --exclude false",
            "group edit sales --no-exclude",
            "group explain sales laptop-7",
            "policy version add baseline 2026.05 --set passcode.min_length=12",
            "policy activate baseline 2026.05 --wait",
            "policy test --bundle policy.zip --devices 500 --seed 1 --fail-rate 0",
            "policy test --settings s.yml --before b.yml --fault Model:camera.allowed=0.02 --gate exact --limit 0.01 -o json",
            "policy what-if baseline --version 2026.06 --fail-on noncompliant --fail-on weaker",
            "policy what-if baseline --file policy/ --platform linux",
            "policy what-if baseline --withdraw -o json",
            "device why laptop-7",
            "device why laptop-7 passcode.min_length",
            "rollout watch rol_1",
            "command lock dev_1 --wait",
            "command bulk lock --filter platform:linux --wait",
            "token create --device-uuid 4c4c4544-0042-3510-8052-b4c04f4b3132",
            "token create --device-uuid u --protocol acme --attestation apple --attestation tpm2 --qr",
            "token create --device-uuid u --protocol scep --subject laptop-7 --ownership personal",
            "token create-bulk --file devices.csv --partial --out tokens.csv",
            "enrollment funnel --hours 24",
            "enrollment policy show -o json",
            "enrollment policy set --file policy.json",
            "enrollment policy set --require-attestation tpm2,apple --devices-max none",
            "enrollment policy set --allow-unattested",
            "log verify --admin-file admin.json",
            "log verify --folder log --key PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "log export --out log",
            "log export --format cef --since 2026-05-04T08:00:00Z",
            "log search --actor cli_1 --action device. --contains dev_",
            "log at device:dev_1 --at 2026-05-04T08:00:00Z",
            "log key",
            "export --out config --secrets-out secrets.json",
            "plan -f config --exit-code -o json",
            "apply -f config --prune --deletion-budget 2",
            "apply -f config --partial --plan-sha256 00",
            "bundle build --policy p --version 1 --settings s.yml --created-at 2026-05-04T08:00:00Z --out policy.zip",
            "bundle sign --key a.pem --key b.pem draft.zip",
            "bundle verify --root root.json policy.zip",
            "bundle push policy.zip",
            "key generate --role policy --out policy.pem",
            "key generate --role root --out root.pem --no-passphrase",
            "root show",
            "root fetch --out root.json",
            "root init --in root.json --keys 3 --threshold 2 --keys-out stick --sign-with old.pem --out next.json",
            "root add-approver --in root.json --person Ada --key ada.pub --account ada --out next.json",
            "root add-approver --person Ada --key ada.pub --account ada --threshold 1 --sign-with root.pem --publish",
            "root remove-approver --in root.json --person Ada --out next.json",
            "root add-key --in root.json --role witness --key w.pub --threshold 1 --out next.json",
            "root remove-key --in root.json 0a1b2c3d --out next.json",
            "root rotate --in root.json --old 0a1b2c3d --new new.pub --out next.json",
            "root set-threshold --in root.json --role approver --threshold 2 --out next.json",
            "root set-budget --in root.json --per-hour 5 --fraction 0.005 --out next.json",
            "root set-approval --in root.json --cool-down 1d --delay 5m --also run-script --out next.json",
            "root renew --sign-with root.pem --publish --yes",
            "root begin-restore --in root.json --sign-with root.pem --out next.json",
            "root sign --in next.json --key a.pem --key b.pem --yes",
            "root publish --in next.json",
            "root verify --in next.json",
            "approver init --person Ada --out ada.pem",
            "approver list",
            "approver show opr_1 --out request.json",
            "approver approve opr_1 --key ada.pem",
            "approver approve --request request.json --key ada.pem --out approval.json",
            "approver send approval.json",
            "approver reject opr_1 --reason wrong",
            "operation list --state awaiting_approval",
            "operation targets opr_1 --all",
            "operation cancel opr_1 --reason wrong --yes",
            "operation release opr_1",
            "operation watch opr_1 --timeout 1h",
            "halt",
            "halt --reason stolen",
            "halt show",
            "halt lift --reason over",
            "client create ci --scope device:read --scope policy:write",
            "compliance",
            "compliance violations --filter severity:high",
            "device compliance laptop-7",
            "command message laptop-7 hello --wait",
            "--context lab overview",
            "completion bash",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn a_local_log_is_left_to_the_binary() {
        let local = parse("log verify --data-dir data").expect("it parses");
        assert_eq!(local.command.local_log_verification(), Some(Path::new("data")));
        let remote = parse("log verify").expect("it parses");
        assert_eq!(remote.command.local_log_verification(), None);
        assert!(parse("log verify --data-dir data --root-file root.json").is_err());
    }

    #[test]
    fn wrong_usage_is_found_by_the_parser() {
        for line in [
            "device",
            "command lock",
            "policy what-if baseline",
            "policy test",
            "policy what-if baseline --version 1 --withdraw",
            "policy what-if baseline --version 1 --fail-on anything",
            "token create",
            "-o xml overview",
            "device decide dev_1 maybe",
            "token create --device-uuid u --protocol pigeon",
            "token create --device-uuid u --attestation magic",
            "token create-bulk",
            "enrollment policy set --require-attestation unattested",
            "enrollment policy set --devices-max -1",
            "plan -f config --prune --partial",
            "apply -f config --deletion-budget 2",
            "bundle sign draft.zip",
            "key generate --role approver --out ada.pem",
            "root renew",
            "root renew --publish",
            "root remove-approver --out next.json",
            "root init --in root.json --keys 0 --keys-out stick --out next.json",
            "directory sync",
            "directory sync --config d.toml --every 1s",
            "directory sync --config d.toml --every 15m --allow-removals 9",
            "directory example novell",
            "approver show",
            "approver approve --request request.json --key ada.pem",
            "approver approve opr_1",
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("`{line}` parses"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
