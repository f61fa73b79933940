//! The schemas that this server has (RFC 7643, sections 4 and 8.7.1): one table, from which requests are judged and
//! `/Schemas` is answered.

/// The type of a value (RFC 7643, section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Boolean,
    DateTime,
    Binary,
    Reference,
    Complex,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Text => "string",
            Kind::Boolean => "boolean",
            Kind::DateTime => "dateTime",
            Kind::Binary => "binary",
            Kind::Reference => "reference",
            Kind::Complex => "complex",
        }
    }
}

/// Who may change an attribute, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutability {
    ReadWrite,
    ReadOnly,
    /// A value is added or removed, never changed.
    Immutable,
    /// Accepted, and dropped: this server keeps no password.
    WriteOnly,
}

impl Mutability {
    pub const fn as_str(self) -> &'static str {
        match self {
            Mutability::ReadWrite => "readWrite",
            Mutability::ReadOnly => "readOnly",
            Mutability::Immutable => "immutable",
            Mutability::WriteOnly => "writeOnly",
        }
    }
}

/// When an attribute is in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    Always,
    Default,
    /// Only where it is asked for by name.
    Request,
    Never,
}

impl Returned {
    pub const fn as_str(self) -> &'static str {
        match self {
            Returned::Always => "always",
            Returned::Default => "default",
            Returned::Request => "request",
            Returned::Never => "never",
        }
    }
}

/// An attribute's definition (RFC 7643, section 7).
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: &'static str,
    pub kind: Kind,
    pub is_multiple: bool,
    pub description: &'static str,
    pub is_required: bool,
    /// Once it is there it stays: it is changed, never removed. Whoever creates a resource may leave it out.
    pub is_lasting: bool,
    pub is_case_exact: bool,
    pub mutability: Mutability,
    pub returned: Returned,
    /// `server` where no two resources have the same.
    pub is_unique: bool,
    /// Values that are expected; others are taken too.
    pub words: &'static [&'static str],
    /// What a reference names.
    pub references: &'static [&'static str],
    pub subs: &'static [Attribute],
}

impl Attribute {
    const fn new(name: &'static str, kind: Kind, description: &'static str) -> Attribute {
        Attribute {
            name,
            kind,
            is_multiple: false,
            description,
            is_required: false,
            is_lasting: false,
            is_case_exact: false,
            mutability: Mutability::ReadWrite,
            returned: Returned::Default,
            is_unique: false,
            words: &[],
            references: &[],
            subs: &[],
        }
    }

    const fn multiple(mut self) -> Attribute {
        self.is_multiple = true;
        self
    }

    const fn required(mut self) -> Attribute {
        self.is_required = true;
        self
    }

    const fn lasting(mut self) -> Attribute {
        self.is_lasting = true;
        self
    }

    const fn exact(mut self) -> Attribute {
        self.is_case_exact = true;
        self
    }

    const fn unique(mut self) -> Attribute {
        self.is_unique = true;
        self
    }

    const fn always(mut self) -> Attribute {
        self.returned = Returned::Always;
        self
    }

    const fn changed_by(mut self, mutability: Mutability) -> Attribute {
        self.mutability = mutability;
        self
    }

    const fn on_request(mut self) -> Attribute {
        self.returned = Returned::Request;
        self
    }

    const fn never_returned(mut self) -> Attribute {
        self.returned = Returned::Never;
        self
    }

    const fn words(mut self, words: &'static [&'static str]) -> Attribute {
        self.words = words;
        self
    }

    const fn of(mut self, subs: &'static [Attribute]) -> Attribute {
        self.subs = subs;
        self
    }

    /// The sub-attribute with this name, whatever its case.
    pub fn sub(&self, name: &str) -> Option<&'static Attribute> {
        self.subs.iter().find(|sub| sub.name.eq_ignore_ascii_case(name))
    }

    /// Whether a client may give it a value.
    pub fn is_writable(&self) -> bool {
        self.mutability != Mutability::ReadOnly
    }
}

/// A schema (RFC 7643, section 7).
#[derive(Debug, PartialEq, Eq)]
pub struct Schema {
    pub id: &'static str,
    pub name: &'static str,
    pub description: &'static str,
    pub attributes: &'static [Attribute],
}

impl Schema {
    /// The attribute with this name, whatever its case.
    pub fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.attributes
            .iter()
            .find(|known| known.name.eq_ignore_ascii_case(name))
    }
}

/// A resource type (RFC 7643, section 6).
#[derive(Debug, PartialEq, Eq)]
pub struct ResourceType {
    pub name: &'static str,
    /// Below the base, with its slash.
    pub endpoint: &'static str,
    pub description: &'static str,
    pub schema: &'static Schema,
    pub extensions: &'static [&'static Schema],
}

impl ResourceType {
    /// The extension with this URN, whatever its case.
    pub fn extension(&self, urn: &str) -> Option<&'static Schema> {
        self.extensions
            .iter()
            .copied()
            .find(|schema| schema.id.eq_ignore_ascii_case(urn))
    }

    /// An attribute of the core schema, or one that every resource has.
    pub fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        let common = || COMMON.iter().find(|known| known.name.eq_ignore_ascii_case(name));
        self.schema.attribute(name).or_else(common)
    }
}

const fn text(name: &'static str, description: &'static str) -> Attribute {
    Attribute::new(name, Kind::Text, description)
}

const fn read_only(attribute: Attribute) -> Attribute {
    attribute.changed_by(Mutability::ReadOnly)
}

const fn reference(name: &'static str, to: &'static [&'static str], description: &'static str) -> Attribute {
    let mut made = Attribute::new(name, Kind::Reference, description).exact();
    made.references = to;
    made
}

/// Attributes of every resource (RFC 7643, section 3.1). They are in no schema's list.
pub static COMMON: &[Attribute] = &[
    read_only(
        text(
            "id",
            "The resource's id. It never changes and is never given again.",
        )
        .exact()
        .always(),
    ),
    text("externalId", "The id that the client gave.").exact(),
    reference("schemas", &["uri"], "The schemas of the resource.")
        .multiple()
        .always(),
    read_only(Attribute::new(
        "meta",
        Kind::Complex,
        "What the server says of the resource.",
    ))
    .of(&[
        read_only(text("resourceType", "User or Group.").exact()),
        read_only(Attribute::new("created", Kind::DateTime, "When it was made.")),
        read_only(Attribute::new(
            "lastModified",
            Kind::DateTime,
            "When it was changed last.",
        )),
        read_only(reference("location", &["uri"], "Its address.")),
        read_only(text("version", "Its version, as in ETag.").exact()),
    ]),
];

const DISPLAY: Attribute = text("display", "A name for people.");
const PRIMARY: Attribute = Attribute::new(
    "primary",
    Kind::Boolean,
    "Whether it is the preferred one. At most one is.",
);

macro_rules! plural {
    ($value:expr, $words:expr) => {
        &[
            $value,
            DISPLAY,
            text("type", "What it is used for.").words($words),
            PRIMARY,
        ]
    };
}

/// The core schema of users (RFC 7643, section 4.1).
pub static USER: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:core:2.0:User",
    name: "User",
    description: "A person",
    attributes: &[
        text(
            "userName",
            "The name by which the person signs in. Its case does not matter.",
        )
        .required()
        .unique(),
        Attribute::new("name", Kind::Complex, "The parts of the person's name.").of(&[
            text("formatted", "The whole name."),
            text("familyName", "The family name."),
            text("givenName", "The given name."),
            text("middleName", "The names between."),
            text("honorificPrefix", "What stands before, such as a title."),
            text("honorificSuffix", "What stands after, such as III."),
        ]),
        text("displayName", "The name in lists."),
        text("nickName", "The casual name."),
        reference("profileUrl", &["external"], "The address of the person's page."),
        text("title", "The person's title, such as Vice President."),
        text("userType", "The relation to the organization, such as Employee."),
        text("preferredLanguage", "As in Accept-Language (RFC 9110)."),
        text(
            "locale",
            "The language tag by which numbers and times are written (RFC 5646).",
        ),
        text("timezone", "The time zone, such as Europe/Berlin."),
        Attribute::new(
            "active",
            Kind::Boolean,
            "Whether the person may act; true unless it is said. False ends sessions, links and approvals.",
        )
        .lasting(),
        text(
            "password",
            "It is accepted and dropped: Muster keeps no passwords.",
        )
        .changed_by(Mutability::WriteOnly)
        .never_returned(),
        Attribute::new("emails", Kind::Complex, "Addresses of mail.")
            .multiple()
            .of(plural!(text("value", "The address."), &["work", "home", "other"])),
        Attribute::new("phoneNumbers", Kind::Complex, "Numbers of telephones.")
            .multiple()
            .of(plural!(
                text("value", "The number."),
                &["work", "home", "mobile", "fax", "pager", "other"]
            )),
        Attribute::new("ims", Kind::Complex, "Addresses of instant messages.")
            .multiple()
            .of(plural!(
                text("value", "The address."),
                &["aim", "gtalk", "icq", "xmpp", "msn", "skype", "qq", "yahoo"]
            )),
        Attribute::new("photos", Kind::Complex, "Addresses of pictures.")
            .multiple()
            .of(plural!(
                reference("value", &["external"], "The picture's address."),
                &["photo", "thumbnail"]
            )),
        Attribute::new("addresses", Kind::Complex, "Postal addresses.")
            .multiple()
            .of(&[
                text("formatted", "The whole address."),
                text("streetAddress", "Street and number."),
                text("locality", "The town."),
                text("region", "The state or region."),
                text("postalCode", "The postal code."),
                text("country", "The country (ISO 3166-1)."),
                text("type", "What it is used for.").words(&["work", "home", "other"]),
                PRIMARY,
            ]),
        read_only(Attribute::new("groups", Kind::Complex, "The groups that the person is in.").multiple())
            .of(&[
                read_only(text("value", "The group's id.").exact()),
                read_only(reference("$ref", &["Group"], "The group's address.")),
                read_only(text("display", "The group's name.")),
                read_only(
                    text("type", "direct, or indirect through another group.").words(&["direct", "indirect"]),
                ),
            ]),
        Attribute::new("entitlements", Kind::Complex, "What the person is entitled to.")
            .multiple()
            .of(plural!(text("value", "The entitlement."), &[])),
        Attribute::new(
            "roles",
            Kind::Complex,
            "The person's roles. They grant nothing in Muster.",
        )
        .multiple()
        .of(plural!(text("value", "The role."), &[])),
        Attribute::new("x509Certificates", Kind::Complex, "The person's certificates.")
            .multiple()
            .of(plural!(
                Attribute::new("value", Kind::Binary, "The certificate, DER in Base64.").exact(),
                &[]
            )),
    ],
};

/// The enterprise extension of users (RFC 7643, section 4.3).
pub static ENTERPRISE_USER: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
    name: "EnterpriseUser",
    description: "A person in an organization",
    attributes: &[
        text("employeeNumber", "The number that the organization gave."),
        text("costCenter", "The cost center."),
        text("organization", "The organization."),
        text("division", "The division."),
        text(
            "department",
            "The department. Expressions read it as owner.department.",
        ),
        Attribute::new("manager", Kind::Complex, "The person's manager.").of(&[
            text("value", "The manager's id.").exact(),
            reference("$ref", &["User"], "The manager's address."),
            read_only(text("displayName", "The manager's name.")),
        ]),
    ],
};

/// The schema of groups (RFC 7643, section 4.2).
pub static GROUP: Schema = Schema {
    id: "urn:ietf:params:scim:schemas:core:2.0:Group",
    name: "Group",
    description: "People, and groups of people",
    attributes: &[
        text(
            "displayName",
            "The group's name. Expressions read it in owner.groups.",
        )
        .required(),
        Attribute::new("members", Kind::Complex, "Who is in it.")
            .multiple()
            .of(&[
                text("value", "The id of a user or group.")
                    .exact()
                    .changed_by(Mutability::Immutable),
                reference("$ref", &["User", "Group"], "The member's address.")
                    .changed_by(Mutability::Immutable),
                text("type", "User or Group.")
                    .words(&["User", "Group"])
                    .changed_by(Mutability::Immutable),
                read_only(text("display", "The member's name.").on_request()),
            ]),
    ],
};

/// People.
pub static USERS: ResourceType = ResourceType {
    name: "User",
    endpoint: "/Users",
    description: "People",
    schema: &USER,
    extensions: &[&ENTERPRISE_USER],
};

/// Groups of people.
pub static GROUPS: ResourceType = ResourceType {
    name: "Group",
    endpoint: "/Groups",
    description: "Groups of people",
    schema: &GROUP,
    extensions: &[],
};

/// Every resource type.
pub static RESOURCE_TYPES: [&ResourceType; 2] = [&USERS, &GROUPS];
