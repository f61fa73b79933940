//! The rows of the matrix: every route of every list of routes, and the requests that cross it.

use std::{collections::BTreeSet, fs, path::Path};

use super::bodies::Bodies;
use crate::support::{
    api::{Api, answer},
    crossing::{Crossing, Crossings, Request, Undo, encoded},
    device::Door,
    furnish::{Furnished, NO_IDS},
    openapi::{Document, is_of_type},
    routes,
};

/// Addresses that are there for everybody, whose tenant gives them to others: they are asked, and must change nothing, but what
/// they answer is not what an address that does not exist answers.
const PUBLIC_ADDRESSES: &[(&str, &str)] = &[
    ("/auth/oidc/", "people sign in there, and providers sign them out"),
    ("/auth/saml/", "people sign in there, and providers sign them out"),
    (
        "/signals/in/",
        "senders post there; who has no secret of the source learns only that the address is one",
    ),
    ("/signals/{tenant}/", "receivers of signals fetch the keys there"),
    (
        "/.well-known/ssf-configuration/",
        "receivers of signals read there who the transmitter is",
    ),
    (
        "/acme/",
        "every request is signed for its address and by its account; `acme_requests.rs` has other accounts and tenants",
    ),
];
/// Lists of routes in the sources, beside the table of the API.
const LISTS: &[(&str, Kind, &str)] = &[
    ("control/src/directory/scim.rs", Kind::Scim, "/scim/v2"),
    ("control/src/signals/inbound.rs", Kind::Public, ""),
    ("console/src/pages", Kind::Page, ""),
    ("gateway/src/agent.rs", Kind::Device, ""),
    ("gateway/src/acme.rs", Kind::Public, ""),
];
/// What an object is told to have none of, in the words that say that the object itself was found.
const HAS_NONE: &[(&str, &str)] = &[
    ("/api/v1/commands/{id}/output", "The command has no output"),
    ("/api/v1/devices/{id}/facts", "The device has sent no facts yet"),
    (
        "/api/v1/devices/{id}/quarantine",
        "The device is not in quarantine",
    ),
    (
        "/api/v1/sinks/{name}/dead-letters/discard",
        "No such event is set aside",
    ),
    (
        "/api/v1/sinks/{name}/dead-letters/replay",
        "No such event is set aside",
    ),
    (
        "/api/v1/access/held-sign-ins/{reference}/decide",
        "Nobody of this reference waits",
    ),
    (
        "/api/v1/access/routed-connections/{id}",
        "Nothing is offered by this connection",
    ),
    (
        "/api/v1/access/routed-connections/{id}",
        "The tenant takes nobody from this connection",
    ),
    (
        "/api/v1/access/connections/{name}/routing",
        "The connection has no rules",
    ),
    (
        "/api/v1/access/connections/{name}/routing",
        "The connection routes nobody",
    ),
    (
        "/api/v1/access/self-enrollment/{id}",
        "People of this connection enroll no devices",
    ),
    // The matrix asks as a service account, and these are done in person: `visits.rs` has people.
    ("/api/v1/tenants/{id}/visits", "Only a person visits a tenant"),
    ("/api/v1/visits/{id}/begin", "Only a person visits a tenant"),
    (
        "/api/v1/operator-visits/{id}/grant",
        "Only a person lets the operator's people in",
    ),
    ("/api/v1/log/tile/{path}", "The tree does not reach this tile yet"),
    (
        "/api/v1/operations/{id}/approvals",
        "The root document names no approver with this key",
    ),
];
/// Parameters of the query that never name an object: times, numbers in words, and closed lists.
const NO_ID_PARAMETERS: &[&str] = &[
    "at",
    "since",
    "until",
    "from",
    "to",
    "metric",
    "statistic",
    "quantiles",
    "order",
    "platform",
    "format",
    "state",
    "needs",
];

/// Which ids take the placeholder of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// Those of every kind, and of the kind that belongs there every spelling.
    EveryKind,
    /// Those of the kind that belongs there, in every spelling.
    OwnKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Api,
    Scim,
    Page,
    Device,
    Public,
}

/// One route: a method and a path with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    kind: Kind,
    method: String,
    path: String,
}

/// Who asks: another tenant's program, person and device.
#[derive(Clone)]
pub struct Caller {
    pub api: Api,
    pub device: Door,
    /// The cookie, and what forms carry.
    pub session: (String, String),
}

pub struct Rows {
    rows: Vec<Row>,
    crossings: Vec<Crossing>,
    bodies: Bodies,
    document: Document,
    /// Creations and the routes that take them back.
    removable: BTreeSet<String>,
    breadth: Breadth,
}

/// Every placeholder of a path, with its place: the path up to it.
fn placeholders(path: &str) -> Vec<&str> {
    let ends = path.match_indices('}').map(|(end, _)| &path[..=end]);
    ends.collect()
}

/// The path with each placeholder filled by what `fill` says of its place.
fn filled<E>(path: &str, mut fill: impl FnMut(&str) -> Result<String, E>) -> Result<String, E> {
    let (mut whole, mut done) = (String::new(), 0);
    for place in placeholders(path) {
        let start = place.rfind('{').expect("a placeholder has two braces");
        whole.push_str(&path[done..start]);
        whole.push_str(&fill(place)?);
        done = place.len();
    }
    Ok(whole + &path[done..])
}

/// The routes that a source adds to its router: every method of every `.route("…")`.
fn routes_in(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for call in source.split(".route(").skip(1) {
        let mut depth = 1;
        let end = call.find(|letter| {
            depth += match letter {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        let call = &call[..end.expect("a call ends")];
        let Some((_, rest)) = call.split_once('"') else {
            continue;
        };
        let (path, handlers) = rest.split_once('"').expect("a text ends");
        let methods = ["get", "post", "put", "patch", "delete"];
        let mut named: Vec<&str> = methods
            .into_iter()
            .filter(|method| {
                handlers
                    .split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != '(')
                    .any(|word| word.starts_with(&format!("{method}(")))
            })
            .collect();
        if named.is_empty() {
            // `any`, or a handler with a name of its own.
            named = vec!["get", "post"];
        }
        found.extend(
            named
                .iter()
                .map(|method| (method.to_ascii_uppercase(), path.to_owned())),
        );
    }
    found
}

/// Every file that a list of routes is in.
fn sources(place: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(place);
    let read = |path: &Path| fs::read_to_string(path).expect("a source can be read");
    if path.is_file() {
        return vec![read(&path)];
    }
    let files = fs::read_dir(&path).unwrap_or_else(|error| panic!("{place}, which has routes: {error}"));
    let files = files.map(|file| file.expect("the folder can be read").path());
    files
        .filter(|file| file.is_file())
        .map(|file| read(&file))
        .collect()
}

/// Names of the fields that a source reads from forms.
fn fields_in(source: &str) -> BTreeSet<String> {
    let words = ["text(", "optional(", "parsed(", "has(", "all("];
    let mut names = BTreeSet::new();
    for word in words {
        for after in source.split(word).skip(1) {
            let quoted = after
                .trim_start()
                .strip_prefix('"')
                .and_then(|rest| rest.split_once('"'));
            let name = quoted.map(|(name, _)| name.to_owned());
            let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            names.extend(name.filter(|name| !name.is_empty() && is_name(name)));
        }
    }
    names
}

impl Rows {
    /// Every row with its crossings; or what has to be furnished for routes that are new.
    pub fn new(
        caller: &Caller,
        (own, foreign): (&Furnished, &Furnished),
        breadth: Breadth,
    ) -> Result<Rows, Vec<String>> {
        let mut rows: Vec<Row> = routes::all()
            .iter()
            .filter(|route| !route.is_public())
            .map(|route| Row {
                kind: Kind::Api,
                method: route.method.to_owned(),
                path: route.path.to_owned(),
            })
            .collect();
        let mut fields: Vec<(Row, BTreeSet<String>)> = Vec::new();
        for (place, kind, prefix) in LISTS {
            for source in sources(place) {
                for (method, path) in routes_in(&source) {
                    let row = Row {
                        kind: *kind,
                        method,
                        path: format!("{prefix}{path}"),
                    };
                    fields.push((row.clone(), fields_in(&source)));
                    rows.push(row);
                }
            }
        }
        let mut made = Rows {
            removable: rows
                .iter()
                .filter(|row| row.method == "DELETE")
                .map(|row| row.path.clone())
                .collect(),
            rows,
            crossings: Vec::new(),
            bodies: Bodies::new(own),
            breadth,
            document: Document::checked_in(),
        };
        let mut missing = Vec::new();
        for row in made.rows.clone() {
            if let Err(what) = made.cross_path(caller, &row, own, foreign) {
                missing.push(format!("{} {}: {what}", row.method, row.path));
                continue;
            }
            if row.kind == Kind::Api {
                made.cross_query(caller, &row, own, foreign);
                if let Err(what) = made.cross_body(caller, &row, own, foreign) {
                    missing.push(format!("{} {}: {what}", row.method, row.path));
                }
            }
        }
        made.cross_forms(caller, &fields, own, foreign);
        made.cross_scim(caller, own, foreign);
        missing.dedup();
        if missing.is_empty() {
            Ok(made)
        } else {
            Err(missing)
        }
    }

    /// How many routes the matrix has.
    pub fn routes(&self) -> usize {
        self.rows.len()
    }

    /// Crosses everything.
    pub async fn cross(&self, crossings: &Crossings) {
        crossings.cross(&self.crossings).await;
    }

    fn request(&self, caller: &Caller, row: &Row, path: &str, body: Option<String>, kind: &str) -> Request {
        let mut headers = Vec::new();
        match row.kind {
            Kind::Api | Kind::Scim => {
                headers.push(("authorization".to_owned(), format!("Bearer {}", caller.api.token)));
            }
            Kind::Page => headers.push(("cookie".to_owned(), caller.session.0.clone())),
            Kind::Device | Kind::Public => {}
        }
        if body.is_some() {
            headers.push(("content-type".to_owned(), kind.to_owned()));
        }
        let origin = if row.kind == Kind::Device || row.path.starts_with("/acme/") {
            &caller.device.url
        } else {
            &caller.api.origin
        };
        Request {
            method: row.method.clone(),
            url: format!("{origin}{path}"),
            headers,
            body,
            shows_certificate: row.kind == Kind::Device,
        }
    }

    /// The body that a route is sent where the id is in its path.
    fn plain_body(&self, caller: &Caller, row: &Row) -> Option<(String, String)> {
        if row.method == "GET" || row.method == "DELETE" {
            return None;
        }
        let json = "application/json".to_owned();
        match row.kind {
            Kind::Api => self.bodies.plain(&self.document, &row.method, &row.path),
            Kind::Scim => Some((
                Bodies::scim(&row.method, &row.path),
                "application/scim+json".to_owned(),
            )),
            Kind::Page => {
                let form = format!(
                    "csrf={}&reason=moving&note=seen&confirm=1&do=save",
                    caller.session.1
                );
                Some((form, "application/x-www-form-urlencoded".to_owned()))
            }
            Kind::Device | Kind::Public => Some(("{}".to_owned(), json)),
        }
    }

    fn cross_path(
        &mut self,
        caller: &Caller,
        row: &Row,
        own: &Furnished,
        foreign: &Furnished,
    ) -> Result<(), String> {
        let places = placeholders(&row.path);
        if places.is_empty() {
            return Ok(());
        }
        let (body, kind) = self.plain_body(caller, row).unzip();
        let kind = kind.unwrap_or_default();
        let is_public = PUBLIC_ADDRESSES
            .iter()
            .any(|(start, _)| row.path.starts_with(start));
        let is_no_id = |place: &str| NO_IDS.iter().any(|(named, _)| *named == place);
        if is_public {
            // Addresses of this kind are known by one placeholder, of which all ids are tried.
            let places = placeholders(&row.path);
            for (of, id) in foreign.kinds() {
                let path = filled(&row.path, |place| {
                    Ok::<_, String>(if place == places[0] {
                        encoded(id)
                    } else {
                        "x".to_owned()
                    })
                })?;
                let request = self.request(caller, row, &path, body.clone(), &kind);
                let what = format!("{} {} with the id of {of}", row.method, row.path);
                let mut crossing = Crossing::new(what, id, |_| request.clone());
                crossing.is_compared = false;
                self.crossings.push(crossing);
            }
            return Ok(());
        }
        let fill = |at: &str, id: &str| {
            filled(&row.path, |place| {
                if place == at {
                    Ok(encoded(id))
                } else {
                    own.of(place)
                }
            })
        };
        for at in places.iter().filter(|place| !is_no_id(place)) {
            fill(at, "")?;
            let mut ids = foreign.ids_of(at);
            // Programs spell ids in every way; pages are given what they link to.
            if row.kind == Kind::Page {
                ids.truncate(1);
            }
            if self.breadth == Breadth::EveryKind {
                ids.extend(foreign.kinds());
                let mut known = BTreeSet::new();
                ids.retain(|(_, id)| known.insert(*id));
            }
            for (of, id) in ids {
                let what = format!("{} {} with {at} = the id of {of}", row.method, row.path);
                let query = required_query(&self.document, row, own);
                let mut crossing = Crossing::new(what, id, |id| {
                    let path = fill(at, id).expect("it was filled before");
                    self.request(caller, row, &format!("{path}{query}"), body.clone(), &kind)
                });
                crossing.is_alone = row.method == "PUT";
                if row.method == "PUT" && self.removable.contains(&row.path) {
                    crossing.undo = Undo::DeleteItself;
                }
                self.crossings.push(crossing);
            }
        }
        // The whole path of the other tenant, such as its policy with its version.
        if places.iter().filter(|place| !is_no_id(place)).count() > 1 {
            let path = filled(&row.path, |place| foreign.of(place))?;
            let first = foreign.of(places[0])?;
            let what = format!(
                "{} {} with the whole path of the other tenant",
                row.method, row.path
            );
            let crossing = Crossing::new(what, &first, |id| {
                let path = path.replace(&first, id);
                let query = required_query(&self.document, row, own);
                self.request(caller, row, &format!("{path}{query}"), body.clone(), &kind)
            });
            self.crossings.push(crossing);
        }
        Ok(())
    }

    fn cross_query(&mut self, caller: &Caller, row: &Row, own: &Furnished, foreign: &Furnished) {
        let route = api_route(row);
        let parameters = self.document.query(&route);
        let Ok(path) = filled(&row.path, |place| own.of(place)) else {
            return;
        };
        let (body, kind) = self.plain_body(caller, row).unzip();
        for parameter in &parameters {
            let is_id = is_of_type(&parameter.schema, "string") && parameter.schema["enum"].is_null();
            if !is_id || NO_ID_PARAMETERS.contains(&parameter.name.as_str()) {
                continue;
            }
            for (of, id) in foreign.kinds() {
                let what = format!("{} {}?{} = the id of {of}", row.method, row.path, parameter.name);
                // A cursor is a place in an order, whether there is something at it or not.
                let request = |id: &str| {
                    let others = parameters
                        .iter()
                        .filter(|other| other.required && other.name != parameter.name);
                    let mut query = format!("?{}={}", parameter.name, encoded(id));
                    for other in others {
                        query += &format!("&{}={}", other.name, encoded(&self.document.sample_of(other)));
                    }
                    let kind = kind.clone().unwrap_or_default();
                    self.request(caller, row, &format!("{path}{query}"), body.clone(), &kind)
                };
                self.crossings.push(match parameter.name.as_str() {
                    "cursor" => Crossing::next_to(what, id, request),
                    _ => Crossing::new(what, id, request),
                });
            }
        }
    }

    fn cross_body(
        &mut self,
        caller: &Caller,
        row: &Row,
        own: &Furnished,
        foreign: &Furnished,
    ) -> Result<(), String> {
        let path = filled(&row.path, |place| own.of(place))?;
        for (what, crossing) in self
            .bodies
            .crossings(&self.document, &row.method, &row.path, foreign)?
        {
            let what = format!("{} {} with {what}", row.method, row.path);
            let mut made = Crossing::next_to(what, &crossing.id, |id| {
                self.request(caller, row, &path, Some((crossing.body)(id)), &crossing.kind)
            });
            // What is made is taken away again, as the lists of a tenant are bounded.
            made.is_alone = true;
            if row.path == "/api/v1/groups/{id}" {
                let base = self.bodies.plain(&self.document, &row.method, &row.path);
                made.undo = base.map_or(Undo::Nothing, |(body, _)| Undo::Repeat(body));
            }
            if row.method == "POST" {
                made.undo = ["{id}", "{sha256}"]
                    .iter()
                    .find(|end| self.removable.contains(&format!("{}/{end}", row.path)))
                    .map_or(Undo::Nothing, |_| Undo::DeleteMade);
            }
            self.crossings.push(made);
        }
        Ok(())
    }

    /// Forms: every field of the page's source at once.
    fn cross_forms(
        &mut self,
        caller: &Caller,
        fields: &[(Row, BTreeSet<String>)],
        own: &Furnished,
        foreign: &Furnished,
    ) {
        let forms = fields.iter().filter(|(row, names)| {
            // Whoever signs out or proves anew has another session afterwards.
            // And too many wrong codes are refused for a while.
            let keeps_session =
                !["/signout", "/signin", "/step-up", "/device-login"].contains(&row.path.as_str());
            row.kind == Kind::Page && row.method == "POST" && keeps_session && !names.is_empty()
        });
        for (row, names) in forms {
            if PUBLIC_ADDRESSES
                .iter()
                .any(|(start, _)| row.path.starts_with(start))
            {
                continue;
            }
            // What ends or removes something of one's own would end the test; its path is crossed all the same.
            let changes = ["edit", "activate", "labels", "decide"];
            let is_change = changes.iter().any(|end| row.path.ends_with(end));
            if row.path.contains('{') && !is_change {
                continue;
            }
            let Ok(path) = filled(&row.path, |place| own.of(place)) else {
                continue;
            };
            for (of, id) in foreign.kinds() {
                let what = format!("the form {} with the id of {of} in every field", row.path);
                let mut crossing = Crossing::next_to(what, id, |id| {
                    let mut form = format!("csrf={}", caller.session.1);
                    for name in names.iter().filter(|name| *name != "csrf") {
                        form += &format!("&{name}={}", encoded(id));
                    }
                    self.request(
                        caller,
                        row,
                        &path,
                        Some(form),
                        "application/x-www-form-urlencoded",
                    )
                });
                crossing.is_alone = true;
                self.crossings.push(crossing);
            }
        }
    }

    /// What SCIM takes ids in beside its paths: members, filters and bulk operations.
    fn cross_scim(&mut self, caller: &Caller, own: &Furnished, foreign: &Furnished) {
        let team = own.of("/scim/v2/Groups/{id}").expect("a group is furnished");
        let row = |method: &str, path: &str| Row {
            kind: Kind::Scim,
            method: method.to_owned(),
            path: path.to_owned(),
        };
        for (of, id) in foreign.kinds() {
            for (name, method, path, body) in Bodies::scim_crossings(&team) {
                let row = row(method, "/scim/v2");
                let what = format!("SCIM: {name} with the id of {of}");
                let mut crossing = Crossing::new(what, id, |id| {
                    let path = format!("/scim/v2{}", path.replace("ID", &encoded(id)));
                    let body = (!body.is_empty()).then(|| body.replace("ID", id));
                    self.request(caller, &row, &path, body, "application/scim+json")
                });
                crossing.is_alone = method != "GET";
                if method == "POST" && ["/Users", "/Groups"].contains(&path.as_str()) {
                    crossing.undo = Undo::DeleteMade;
                }
                self.crossings.push(crossing);
            }
        }
    }

    /// What proves that the matrix is about something: each id is there for its own tenant, and each route with an id finds what
    /// it names and takes the body that it is sent. What deletes comes last.
    pub async fn prove_that_ids_are_real(&self, own: &Api, of: &Furnished) {
        let mut wrong = Vec::new();
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| row.kind == Kind::Api).collect();
        let last = |row: &Row| {
            let ends = [
                "retire", "revoke", "end", "disable", "abort", "reject", "cancel", "secret", "rollback",
            ];
            let is_end = ends.iter().any(|end| row.path.ends_with(end));
            // What is a service account's goes with it.
            let is_clients = row.path.contains("/clients/{id}");
            (
                row.method == "DELETE" && !row.path.ends_with("/routing"),
                is_clients,
                is_end,
                row.method != "GET",
                placeholders(&row.path).len() < 2,
            )
        };
        rows.sort_by_key(|row| last(row));
        for row in rows {
            let path = filled(&row.path, |place| of.of(place)).expect("it was furnished");
            if placeholders(&row.path).is_empty() {
                continue;
            }
            let caller = Caller {
                api: own.clone(),
                device: of.device.door.clone(),
                session: of.session.clone(),
            };
            let body = Bodies::new(of).plain(&self.document, &row.method, &row.path);
            let (body, kind) = body
                .filter(|_| row.method != "GET" && row.method != "DELETE")
                .unzip();
            let query = required_query(&self.document, row, of);
            let request = self.request(
                &caller,
                row,
                &format!("{path}{query}"),
                body,
                &kind.unwrap_or_default(),
            );
            let mut sent = own
                .http
                .request(row.method.parse().expect("a method"), &request.url);
            for (name, value) in &request.headers {
                sent = sent.header(name, value);
            }
            let sent = match request.body {
                Some(body) => sent.body(body),
                None => sent,
            };
            let got = answer(sent).await;
            let is_good = match row.method.as_str() {
                "GET" => got.status == 200,
                _ => got.status < 400 || [409, 412, 422].contains(&got.status),
            };
            let has_none = HAS_NONE
                .iter()
                .any(|(path, words)| *path == row.path && got.text().contains(words));
            let is_good = is_good || has_none;
            if !is_good {
                wrong.push(format!(
                    "{} {path} answered {}: {:.300}",
                    row.method,
                    got.status,
                    got.text()
                ));
            }
        }
        assert!(
            wrong.is_empty(),
            "these answered their own tenant as if there was nothing, or did not take the body of `Bodies` \
             (crates/muster/tests/it/isolation/bodies.rs):\n{}",
            wrong.join("\n")
        );
    }
}

fn api_route(row: &Row) -> routes::Route {
    let found = routes::all()
        .into_iter()
        .find(|route| route.method == row.method && route.path == row.path);
    found.expect("rows of the API come from the table")
}

/// `?name=value` for what a route cannot do without.
fn required_query(document: &Document, row: &Row, own: &Furnished) -> String {
    if row.kind != Kind::Api {
        return String::new();
    }
    let required = document
        .query(&api_route(row))
        .into_iter()
        .filter(|parameter| parameter.required);
    let pairs: Vec<String> = required
        .map(|parameter| {
            let device = (parameter.name == "device").then(|| own.of("/api/v1/devices/{id}").ok());
            let value = device.flatten().unwrap_or_else(|| document.sample_of(&parameter));
            format!("{}={}", parameter.name, encoded(&value))
        })
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}
