//! The document: its form as JSON, and what it says once it was checked.

use muster_model::{
    GroupId,
    rollout::{StageRequest, Window},
    rules::Rule,
    text::{Description, Name, VersionLabel},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    DOCUMENT_BYTES_MAX, POLICIES_MAX, VERSIONS_MAX,
    rules::{Active, LeftOut},
    target::{KnownGroups, TargetDocument},
};
use crate::{
    access::problem::{BODY_TOO_LARGE, FieldError, INVALID, Problem, SETTINGS_INVALID},
    groups::{self, GROUPS_MAX, Group, NewGroup},
    policy::{self, Content, Policy},
    rollout::{self, Course},
};

/// The version of the document's form.
pub const FORMAT: u32 = 1;
/// Wrong fields that one refusal names.
const ERRORS_MAX: usize = 100;

/// A tenant's configuration. Lists have one order and objects one order of members: two exports of one state are the same
/// bytes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// 1.
    pub format: u32,
    /// By name. A document without this member says nothing about groups; one that has it says which there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupDocument>>,
    /// By name.
    pub policies: Vec<PolicyDocument>,
}

/// A dynamic group. Its labels are no part of a document: they are said of devices, one by one or from a table.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupDocument {
    #[schema(value_type = String)]
    pub name: Name,
    /// Kept as it is where the document has none.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// An expression; members are the active devices for which it is true…
    pub include: String,
    /// …and for which this one is not true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
}

/// A policy. What is left out of it is kept as it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    #[schema(value_type = String)]
    pub name: Name,
    #[serde(default)]
    pub description: Option<String>,
    /// In the order in which they were made, or are to be made.
    #[serde(default)]
    pub versions: Vec<VersionDocument>,
    /// What devices should have.
    #[serde(default)]
    pub active: Option<ActiveDocument>,
}

/// A version of a policy.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionDocument {
    #[schema(value_type = String)]
    pub version: VersionLabel,
    /// Setting keys of `GET /settings` with their values, secrets among them.
    #[schema(value_type = Object)]
    pub settings: Box<RawValue>,
    #[schema(value_type = Vec<Object>)]
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// The version that is active, and for whom.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActiveDocument {
    #[schema(value_type = String)]
    pub version: VersionLabel,
    /// Every device when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetDocument>,
    /// As in `POST /policies/{id}/activate`; a pilot of 10 %, a canary of 25 % and everything when absent. Other stages for
    /// what is active already count from the next activation on.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages: Option<Vec<StageRequest>>,
    /// When devices may be moved, as in `POST /policies/{id}/activate`; always when absent.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Vec<Window>>,
}

/// A checked document: names are unique, contents are canonical, groups and policies are sorted by name.
#[derive(Debug, Clone)]
pub struct Entries {
    /// Nothing where the document does not say which groups there are.
    pub(super) groups: Option<Vec<NewGroup>>,
    pub(super) policies: Vec<PolicyEntry>,
    pub(super) left_out: LeftOut,
}

/// A planned document as it is kept: with what becomes of what it leaves out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupDocument>>,
    policies: Vec<PolicyDocument>,
    #[serde(default)]
    left_out: LeftOut,
}

impl Kept {
    pub(super) fn checked(self) -> Result<Entries, Problem> {
        let Kept {
            format,
            groups,
            policies,
            left_out,
        } = self;
        let document = Document {
            format,
            groups,
            policies,
        };
        document.checked(left_out)
    }
}

/// A policy of a checked document.
#[derive(Debug, Clone)]
pub(super) struct PolicyEntry {
    pub name: Name,
    pub description: Option<String>,
    pub versions: Vec<(VersionLabel, Content)>,
    pub active: Option<ActiveEntry>,
}

/// What is to be active, for whom, and how it gets there.
#[derive(Debug, Clone)]
pub(super) struct ActiveEntry {
    pub version: VersionLabel,
    pub target: TargetDocument,
    pub course: Course,
}

impl Document {
    pub(super) fn of(groups: Vec<GroupDocument>, policies: Vec<PolicyDocument>) -> Document {
        Document {
            format: FORMAT,
            groups: Some(groups).filter(|groups| !groups.is_empty()),
            policies,
        }
    }

    /// The document as it is exported.
    pub fn to_json(&self) -> Result<String, Problem> {
        serde_json::to_string(self).map_err(Problem::internal)
    }

    /// What the document says. Every wrong setting is named by policy, version and key.
    pub fn checked(self, left_out: LeftOut) -> Result<Entries, Problem> {
        if self.format != FORMAT {
            return Err(INVALID.detail(format!("A document has `\"format\": {FORMAT}`.")));
        }
        if self.policies.len() > POLICIES_MAX {
            return Err(INVALID.detail(format!("A document has at most {POLICIES_MAX} policies.")));
        }
        let groups = self.groups.map(checked_groups).transpose()?;
        let mut errors = Vec::new();
        let mut policies = Vec::with_capacity(self.policies.len());
        for policy in self.policies {
            policies.push(policy.checked(&mut errors)?);
        }
        if !errors.is_empty() {
            let detail = match errors.as_slice() {
                [only] => format!("{}: {}", only.field, only.detail),
                several => format!("{} fields are wrong; `errors` names each.", several.len()),
            };
            errors.truncate(ERRORS_MAX);
            return Err(SETTINGS_INVALID.detail(detail).with_errors(errors));
        }
        policies.sort_unstable_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        if let Some(pair) = policies.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(INVALID.detail(format!("The document has the policy {} twice.", pair[0].name)));
        }
        Ok(Entries {
            groups,
            policies,
            left_out,
        })
    }
}

impl PolicyDocument {
    pub(super) fn of(
        policy: &Policy,
        versions: Vec<VersionDocument>,
        active: Option<ActiveDocument>,
    ) -> Result<PolicyDocument, Problem> {
        Ok(PolicyDocument {
            name: policy.name.parse().map_err(Problem::internal)?,
            description: policy.description.clone(),
            versions,
            active,
        })
    }

    fn checked(self, errors: &mut Vec<FieldError>) -> Result<PolicyEntry, Problem> {
        let name = self.name;
        let here = |mut problem: Problem| {
            problem.detail = format!("{name}: {}", problem.detail);
            problem
        };
        policy::check_policy(&name, self.description.as_deref()).map_err(here)?;
        if self.versions.len() > VERSIONS_MAX {
            return Err(here(INVALID.detail(format!(
                "A policy of a document has at most {VERSIONS_MAX} versions."
            ))));
        }
        let active = self.active.map(|active| active.checked(&self.versions));
        let active = active.transpose().map_err(here)?;
        let mut versions: Vec<(VersionLabel, Content)> = Vec::with_capacity(self.versions.len());
        let mut labels = std::collections::BTreeSet::new();
        for VersionDocument {
            version,
            settings,
            rules,
        } in self.versions
        {
            if !labels.insert(version.clone()) {
                return Err(here(
                    INVALID.detail(format!("The document has version {version} twice.")),
                ));
            }
            match policy::read_content(settings.get(), &rules) {
                Ok(content) => versions.push((version, content)),
                Err(problem) if problem.kind == SETTINGS_INVALID => {
                    errors.extend(fields_of(problem, &format!("{name}/{version}")));
                }
                Err(problem) => return Err(here(problem)),
            }
        }
        Ok(PolicyEntry {
            name,
            description: self.description,
            versions,
            active,
        })
    }
}

impl VersionDocument {
    /// From canonical settings.
    pub(super) fn of(
        version: VersionLabel,
        settings: String,
        rules: Vec<Rule>,
    ) -> Result<VersionDocument, Problem> {
        Ok(VersionDocument {
            version,
            settings: RawValue::from_string(settings).map_err(Problem::internal)?,
            rules,
        })
    }
}

impl ActiveDocument {
    pub(super) fn of(active: &Active, known: &KnownGroups) -> ActiveDocument {
        ActiveEntry {
            version: active.rollout.version.clone(),
            target: TargetDocument::of(&active.rollout.plan.target, known),
            course: active.course.clone(),
        }
        .document()
    }

    /// `versions` are those that the document has of the policy.
    fn checked(self, versions: &[VersionDocument]) -> Result<ActiveEntry, Problem> {
        let course = Course::read(self.stages.as_deref(), self.windows.as_deref())?;
        let version = versions.iter().find(|version| version.version == self.version);
        rollout::check_objectives(&course.stages, version.map(|version| version.rules.as_slice()))?;
        Ok(ActiveEntry {
            version: self.version,
            target: self.target.unwrap_or_default().checked()?,
            course,
        })
    }
}

impl ActiveEntry {
    /// The one form of it.
    fn document(&self) -> ActiveDocument {
        ActiveDocument {
            version: self.version.clone(),
            target: Some(self.target.clone()).filter(|target| *target != TargetDocument::default()),
            stages: self.course.stages_asked(),
            windows: self.course.windows_asked(),
        }
    }
}

impl GroupDocument {
    pub(super) fn of(group: &Group) -> Result<GroupDocument, Problem> {
        let description = group.description.as_deref().map(Description::parse);
        Ok(GroupDocument {
            name: Name::parse(&group.name).map_err(Problem::internal)?,
            description: description.transpose().map_err(Problem::internal)?,
            include: group.include.clone(),
            exclude: group.exclude.clone(),
        })
    }

    fn checked(self) -> Result<NewGroup, Problem> {
        let place = format!("groups/{}", self.name);
        if self.name.as_str().parse::<GroupId>().is_ok() {
            return Err(INVALID.detail(format!(
                "{place}: a document cannot have a group whose name looks like an id."
            )));
        }
        let (include, exclude) =
            groups::canonical(&self.include, self.exclude.as_deref()).map_err(|mut problem| {
                problem.detail = format!("{place}: {}", problem.detail);
                let errors = fields_of(problem.clone(), &place);
                problem.with_errors(errors)
            })?;
        Ok(NewGroup {
            name: self.name,
            description: self.description,
            include,
            exclude,
        })
    }
}

/// The groups of a document, by name.
fn checked_groups(groups: Vec<GroupDocument>) -> Result<Vec<NewGroup>, Problem> {
    if groups.len() > GROUPS_MAX {
        return Err(INVALID.detail(format!("A document has at most {GROUPS_MAX} groups.")));
    }
    let checked = groups.into_iter().map(GroupDocument::checked);
    let mut groups = checked.collect::<Result<Vec<NewGroup>, Problem>>()?;
    groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = groups.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(INVALID.detail(format!("The document has the group {} twice.", pair[0].name)));
    }
    Ok(groups)
}

impl Entries {
    /// The one text for what a document says, and for what becomes of the rest.
    pub(super) fn to_kept(&self) -> Result<String, Problem> {
        let mut policies = Vec::with_capacity(self.policies.len());
        for entry in &self.policies {
            let mut versions = Vec::with_capacity(entry.versions.len());
            for (label, content) in &entry.versions {
                let rules = serde_json::from_str(&content.rules_json).map_err(Problem::internal)?;
                versions.push(VersionDocument::of(
                    label.clone(),
                    content.settings_json.clone(),
                    rules,
                )?);
            }
            policies.push(PolicyDocument {
                name: entry.name.clone(),
                description: entry.description.clone(),
                versions,
                active: entry.active.as_ref().map(ActiveEntry::document),
            });
        }
        let group = |group: &NewGroup| GroupDocument {
            name: group.name.clone(),
            description: group.description.clone(),
            include: group.include.clone(),
            exclude: group.exclude.clone(),
        };
        let groups = self.groups.as_ref();
        let kept = Kept {
            format: FORMAT,
            groups: groups.map(|groups| groups.iter().map(group).collect()),
            policies,
            left_out: self.left_out,
        };
        let text = serde_json::to_string(&kept).map_err(Problem::internal)?;
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(BODY_TOO_LARGE.detail("The document is over the limit of this call."));
        }
        Ok(text)
    }
}

/// The wrong fields of one version, each under its policy and version.
fn fields_of(problem: Problem, place: &str) -> Vec<FieldError> {
    if problem.errors.is_empty() {
        return vec![FieldError {
            field: place.to_owned(),
            code: problem.code().to_owned(),
            detail: problem.detail,
        }];
    }
    let within = |error: FieldError| FieldError {
        field: format!("{place}/{}", error.field),
        ..error
    };
    problem.errors.into_iter().map(within).collect()
}
