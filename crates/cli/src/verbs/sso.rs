//! `muster sso …`: connections to identity providers.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_input;
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of connections.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum SsoCommand {
    /// List connections, and how their last sign-ins went
    #[command(after_help = "Examples:\n  muster sso list")]
    List,
    /// Connect an identity provider, or change how it is connected
    #[command(
        after_help = "Examples:\n  muster sso put corp --issuer https://login.microsoftonline.com/DIRECTORY/v2.0 --client-id \
        6f3c… --secret-file secret.txt\n  muster sso put corp --issuer https://corp.okta.com --client-id 0oa… --auth \
        private_key_jwt --require-amr mfa\n  muster sso put corp --issuer https://login.microsoftonline.com/DIRECTORY/v2.0 --client-id 6f3c… \
        --directory entra --directory-by oid\n\nThe answer has the addresses to enter at the provider. Then: muster sso test corp; \
        muster access grant administrator --group mdm-admins --source corp"
    )]
    Put(Box<PutArgs>),
    /// Connect a provider that speaks SAML alone, by its metadata, or change how it is connected
    #[command(
        after_help = "Examples:\n  muster sso put-saml corp --metadata idp.xml\n  muster sso put-saml corp --metadata idp.xml --subject-attribute \
        http://schemas.microsoft.com/identity/claims/objectidentifier\n  muster sso put-saml corp --entity-id https://idp.example.com \
        --sso-url https://idp.example.com/sso --certificate now.pem --certificate next.pem\n\nThe answer has the addresses to enter at the \
        provider; its metadata address has all of them. Then: muster sso test corp; muster access grant administrator --group \
        mdm-admins --source corp"
    )]
    PutSaml(Box<PutSamlArgs>),
    /// Try a connection step by step, and say at which one it fails
    #[command(after_help = "Examples:\n  muster sso test corp")]
    Test { name: String },
    /// Remove a connection; whoever came by it is signed out
    #[command(after_help = "Examples:\n  muster sso delete corp --yes")]
    Delete {
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A connection.
#[derive(Clone, Debug, clap::Args)]
pub struct PutArgs {
    /// As people see it at sign-in
    name: String,
    /// As the provider's tokens say it, to the letter
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// What the provider calls this server
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// How this server proves who it is: secret_basic, secret_post or private_key_jwt
    #[arg(long, value_name = "WAY", default_value = "secret_basic")]
    auth: String,
    /// With private_key_jwt: make the next key. It is published for a day before it signs, and the one before for a day after
    #[arg(long)]
    new_key: bool,
    /// The file with the client's secret, `-` for standard input; without it the one that is known stays
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A scope that is asked for besides openid; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", default_values = ["profile", "email"])]
    scopes: Vec<String>,
    /// The claim that lists groups; a JSON Pointer finds a nested one
    #[arg(long, value_name = "CLAIM", default_value = "groups")]
    groups_claim: String,
    /// The claim by which people are called
    #[arg(long, value_name = "CLAIM")]
    name_claim: Option<String>,
    /// One of these must be said of how people are known (acr); may be repeated
    #[arg(long, value_name = "ACR")]
    require_acr: Vec<String>,
    /// All of these must be among what people were asked for (amr); may be repeated
    #[arg(long, value_name = "AMR")]
    require_amr: Vec<String>,
    /// The only directory of Microsoft Entra whose people may come
    #[arg(long, value_name = "TID")]
    tid: Option<String>,
    /// The SCIM connector whose people these are; its groups can then give them roles
    #[arg(long, value_name = "CONNECTOR")]
    directory: Option<String>,
    /// What the connector's externalId is at the provider: subject or oid (Microsoft Entra)
    #[arg(long, value_name = "WHAT", default_value = "subject", requires = "directory")]
    directory_by: String,
    #[command(flatten)]
    most: MostArgs,
    /// Keep the connection and let nobody sign in by it
    #[arg(long)]
    disabled: bool,
}

/// What groups of the directory give.
#[derive(Clone, Debug, clap::Args)]
struct MostArgs {
    /// The role that the connector's groups give at most
    #[arg(
        long,
        value_name = "ROLE",
        default_value = "administrator",
        requires = "directory"
    )]
    directory_at_most: String,
}

/// A connection of SAML. Each setting that is not given is the usual one.
#[derive(Clone, Debug, clap::Args)]
pub struct PutSamlArgs {
    /// As people see it at sign-in
    name: String,
    /// The file with the provider's metadata, `-` for standard input
    #[arg(long, value_name = "FILE", required_unless_present = "entity_id",
        conflicts_with_all = ["entity_id", "sso_url", "slo_url", "certificates"])]
    metadata: Option<PathBuf>,
    /// Who the provider is by its own word, where there is no metadata
    #[arg(long, value_name = "URI", requires = "sso_url", requires = "certificates")]
    entity_id: Option<String>,
    /// Where people are sent to sign in, by HTTP-Redirect
    #[arg(long, value_name = "URL")]
    sso_url: Option<String>,
    /// Where they are sent to sign out, by HTTP-Redirect
    #[arg(long, value_name = "URL")]
    slo_url: Option<String>,
    /// A file with a certificate by which it signs; may be repeated, for the next one
    #[arg(long = "certificate", id = "certificates", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// The format of names that is asked for
    #[arg(long, value_name = "URI")]
    name_id_format: Option<String>,
    /// The attribute by which people are known for ever, instead of the NameID
    #[arg(long, value_name = "NAME")]
    subject_attribute: Option<String>,
    /// The attribute by which people are called
    #[arg(long, value_name = "NAME")]
    username_attribute: Option<String>,
    /// The attribute with the name that pages show
    #[arg(long, value_name = "NAME")]
    display_name_attribute: Option<String>,
    /// The attribute that lists groups
    #[arg(long, value_name = "NAME")]
    groups_attribute: Option<String>,
    /// One of these authentication context classes must be how people signed in there; may be repeated
    #[arg(long, value_name = "URI")]
    require_authn_context: Vec<String>,
    /// What must be signed: assertion, response or both
    #[arg(long, value_name = "WHAT", default_value = "assertion")]
    must_be_signed: String,
    /// Refuse assertions that are not encrypted for this server
    #[arg(long)]
    must_be_encrypted: bool,
    /// Do not sign requests for a sign-in
    #[arg(long)]
    unsigned_requests: bool,
    /// Let people come from the provider's own portal, unasked
    #[arg(long)]
    allow_idp_initiated: bool,
    /// The SCIM connector whose people these are, by their persistent NameID; its groups can then give them roles
    #[arg(long, value_name = "CONNECTOR")]
    directory: Option<String>,
    #[command(flatten)]
    most: MostArgs,
    /// End sessions after so many seconds without a click
    #[arg(long, value_name = "SECONDS")]
    idle_seconds: Option<u64>,
    /// End sessions after so many seconds
    #[arg(long, value_name = "SECONDS")]
    session_seconds: Option<u64>,
    /// Make new keys of this server's; give the provider the new metadata at once
    #[arg(long)]
    new_keys: bool,
    /// Keep the connection and let nobody sign in by it
    #[arg(long)]
    disabled: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Addresses {
    redirect_uri: String,
    backchannel_logout_uri: String,
    post_logout_redirect_uri: String,
    jwks_uri: String,
    entity_id: String,
    acs_url: String,
    slo_url: String,
    metadata_url: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Definition {
    issuer: String,
    client_auth: String,
    entity_id: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Connection {
    name: String,
    kind: String,
    enabled: bool,
    definition: Definition,
    addresses: Addresses,
    succeeded_at: Option<String>,
    error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    step: String,
    outcome: String,
    detail: String,
}

/// Runs one verb.
pub async fn run(command: SsoCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        SsoCommand::List => {
            let answer: Answer<Items<Connection>> = api.send(Call::get(&["access", "connections"])).await?;
            printer.answer(&answer.value, |printer| connections(printer, &answer.known.items))
        }
        SsoCommand::Put(arguments) => put(*arguments, api, printer).await,
        SsoCommand::PutSaml(arguments) => put_saml(*arguments, api, printer).await,
        SsoCommand::Test { name } => {
            let call = Call::post(&["access", "connections", &name, "test"]);
            let answer: Answer<Items<Step>> = api.send(call).await?;
            printer.answer(&answer.value, |_| steps(&answer.known.items))?;
            match answer.known.items.iter().find(|step| step.outcome == "failed") {
                None => Ok(()),
                Some(step) => Err(CliError::Failed(format!("the step {} failed", step.step))),
            }
        }
        SsoCommand::Delete { name, yes } => {
            printer.confirm(
                yes,
                "Whoever came by it is signed out, and the roles of its groups are gone.",
                &name,
            )?;
            api.send_quiet(Call::delete(&["access", "connections", &name]))
                .await?;
            printer.note(&format!("{name} is removed."));
            Ok(())
        }
    }
}

async fn put(arguments: PutArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let secret = arguments.secret_file.as_deref().map(read_input).transpose()?;
    let mut body = json!({
        "definition": {
            "issuer": arguments.issuer, "client_id": arguments.client_id, "client_auth": arguments.auth,
            "scopes": arguments.scopes, "groups_claim": arguments.groups_claim, "required_acr": arguments.require_acr,
            "required_amr": arguments.require_amr,
        },
        "enabled": !arguments.disabled, "new_keys": arguments.new_key,
    });
    if let Some(claim) = arguments.name_claim {
        body["definition"]["name_claim"] = json!(claim);
    }
    if let Some(tid) = arguments.tid {
        body["definition"]["tid"] = json!(tid);
    }
    if let Some(connector) = arguments.directory {
        body["definition"]["directory"] = json!({"connector": connector, "by": arguments.directory_by, "at_most": arguments.most.directory_at_most});
    }
    if let Some(secret) = secret {
        body["client_secret"] = json!(String::from_utf8_lossy(&secret).trim_end());
    }
    let call = Call::put(&["access", "connections", &arguments.name], body);
    let answer: Answer<Connection> = api.send(call).await?;
    printer.answer(&answer.value, |_| {
        let Connection {
            addresses,
            definition,
            ..
        } = answer.known.clone();
        let own_key = definition.client_auth == "private_key_jwt";
        Sheet::new().fields(vec![
            ("redirect URI", Some(addresses.redirect_uri)),
            ("back-channel logout URI", Some(addresses.backchannel_logout_uri)),
            ("after signing out", Some(addresses.post_logout_redirect_uri)),
            (
                "keys of this server",
                Some(addresses.jwks_uri).filter(|_| own_key),
            ),
        ])
    })?;
    printer.note("Enter these at the provider, then: muster sso test");
    Ok(())
}

/// The definition as the API takes it: what was not said is left out.
fn saml_definition(arguments: &PutSamlArgs) -> Result<serde_json::Value, CliError> {
    let text = |path: &PathBuf| -> Result<String, CliError> {
        Ok(String::from_utf8_lossy(&read_input(path)?).into_owned())
    };
    let mut definition = json!({
        "kind": "saml", "required_authn_contexts": arguments.require_authn_context,
        "must_be_signed": arguments.must_be_signed, "must_be_encrypted": arguments.must_be_encrypted,
        "sign_requests": !arguments.unsigned_requests, "allow_idp_initiated": arguments.allow_idp_initiated,
    });
    if let Some(path) = &arguments.metadata {
        definition["metadata"] = json!(text(path)?);
    } else {
        let certificates = arguments.certificates.iter().map(text);
        definition["certificates"] = json!(certificates.collect::<Result<Vec<_>, _>>()?);
    }
    let texts = [
        ("entity_id", &arguments.entity_id),
        ("sso_url", &arguments.sso_url),
        ("slo_url", &arguments.slo_url),
        ("name_id_format", &arguments.name_id_format),
        ("subject_attribute", &arguments.subject_attribute),
        ("username_attribute", &arguments.username_attribute),
        ("display_name_attribute", &arguments.display_name_attribute),
        ("groups_attribute", &arguments.groups_attribute),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            definition[name] = json!(value);
        }
    }
    if let Some(connector) = &arguments.directory {
        definition["directory"] =
            json!({"connector": connector, "at_most": arguments.most.directory_at_most});
    }
    for (name, seconds) in [
        ("idle_seconds", arguments.idle_seconds),
        ("session_seconds", arguments.session_seconds),
    ] {
        if let Some(seconds) = seconds {
            definition[name] = json!(seconds);
        }
    }
    Ok(definition)
}

async fn put_saml(arguments: PutSamlArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let body = json!({
        "definition": saml_definition(&arguments)?, "enabled": !arguments.disabled, "new_keys": arguments.new_keys,
    });
    let call = Call::put(&["access", "connections", &arguments.name], body);
    let answer: Answer<Connection> = api.send(call).await?;
    printer.answer(&answer.value, |_| {
        let addresses = answer.known.addresses.clone();
        Sheet::new().fields(vec![
            ("metadata of this server", Some(addresses.metadata_url)),
            ("identifier (entity id)", Some(addresses.entity_id)),
            ("address for answers (ACS)", Some(addresses.acs_url)),
            ("address for logout (SLO)", Some(addresses.slo_url)),
        ])
    })?;
    printer.note("Give the provider the metadata, or enter the rest there, then: muster sso test");
    Ok(())
}

fn connections(printer: &Printer, items: &[Connection]) -> Sheet {
    let row = |one: &Connection| {
        let state = match (one.enabled, &one.error, &one.succeeded_at) {
            (false, _, _) => "switched off",
            (true, Some(_), _) => "failing",
            (true, None, Some(_)) => "works",
            (true, None, None) => "never used",
        };
        vec![
            one.name.clone(),
            one.kind.clone(),
            state.to_owned(),
            if one.kind == "saml" {
                one.definition.entity_id.clone()
            } else {
                one.definition.issuer.clone()
            },
            printer.ago(one.succeeded_at.as_deref()),
            or_dash(one.error.as_deref()),
        ]
    };
    Sheet::new().rows(
        "connections; muster sso put --help and put-saml --help say how to make one",
        &["name", "kind", "state", "issuer", "last sign-in", "error"],
        items.iter().map(row).collect(),
    )
}

fn steps(items: &[Step]) -> Sheet {
    let row = |step: &Step| vec![step.step.clone(), step.outcome.clone(), step.detail.clone()];
    Sheet::new().rows(
        "steps",
        &["step", "outcome", "what was found"],
        items.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: SsoCommand,
    }

    fn read(line: &str) -> Option<PutSamlArgs> {
        match Line::try_parse_from(std::iter::once("sso").chain(line.split(' '))) {
            Ok(Line {
                command: SsoCommand::PutSaml(arguments),
            }) => Some(*arguments),
            _ => None,
        }
    }

    #[test]
    fn a_provider_is_its_metadata_or_what_is_in_it() {
        let by_hand = "put-saml corp --entity-id https://idp.example --sso-url https://idp.example/sso --certificate a.pem";
        assert!(read("put-saml corp --metadata idp.xml --must-be-signed both").is_some());
        assert!(read(by_hand).is_some());
        for wrong in [
            "put-saml corp".to_owned(),
            "put-saml corp --entity-id https://idp.example".to_owned(),
            format!("{by_hand} --metadata idp.xml"),
        ] {
            assert!(read(&wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_said_is_left_to_the_server() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("idp.xml");
        std::fs::write(&file, "<x/>").expect("it can be written");
        let arguments = read(&format!(
            "put-saml corp --metadata {} --subject-attribute oid",
            file.display()
        ));
        let definition = saml_definition(&arguments.expect("it parses")).expect("the file is there");
        assert_eq!(
            definition,
            json!({
                "kind": "saml", "metadata": "<x/>", "subject_attribute": "oid", "required_authn_contexts": [],
                "must_be_signed": "assertion", "must_be_encrypted": false, "sign_requests": true,
                "allow_idp_initiated": false,
            })
        );
    }
}
