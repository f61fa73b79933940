//! Configuration of Windows' own EAP methods, for wireless networks and VPN profiles (the `EapHostConfig` schema).

use crate::xml::Element;

const HOST: &str = "http://www.microsoft.com/provisioning/EapHostConfig";
const COMMON: &str = "http://www.microsoft.com/provisioning/EapCommon";
const BASE: &str = "http://www.microsoft.com/provisioning/BaseEapConnectionPropertiesV1";
const TLS: &str = "http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV1";
const PEAP: &str = "http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV1";
const PEAP_V2: &str = "http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV2";
const TTLS: &str = "http://www.microsoft.com/provisioning/EapTtlsConnectionPropertiesV1";
const MS_CHAP: &str = "http://www.microsoft.com/provisioning/MsChapV2ConnectionPropertiesV1";

/// Numbers of the methods (IANA's EAP method types).
const TYPE_TLS: &str = "13";
const TYPE_TTLS: &str = "21";
const TYPE_PEAP: &str = "25";
const TYPE_MS_CHAP: &str = "26";
/// The author of Windows' own TTLS.
const AUTHOR_TTLS: &str = "311";

/// A method, and with which server it speaks: one whose certificate leads to one of these roots, by SHA-1 thumbprint in
/// hexadecimal. Without roots the user decides.
pub(crate) struct Eap<'a> {
    pub method: Method,
    pub roots: &'a [String],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Tls,
    Peap,
    Ttls,
}

impl Eap<'_> {
    pub(crate) fn host_config(&self) -> Element {
        let (kind, author, config) = match self.method {
            Method::Tls => (TYPE_TLS, "0", self.tls()),
            Method::Peap => (TYPE_PEAP, "0", self.peap()),
            Method::Ttls => (TYPE_TTLS, AUTHOR_TTLS, self.ttls()),
        };
        let common = |name, text: &str| Element::of(name, text).attribute("xmlns", COMMON);
        Element::new("EapHostConfig")
            .attribute("xmlns", HOST)
            .child(
                Element::new("EapMethod")
                    .child(common("Type", kind))
                    .child(common("VendorId", "0"))
                    .child(common("VendorType", "0"))
                    .child(common("AuthorId", author)),
            )
            .child(Element::new("Config").attribute("xmlns", HOST).child(config))
    }

    fn tls(&self) -> Element {
        let store = Element::new("CertificateStore").child(Element::of("SimpleCertSelection", "true"));
        base(
            TYPE_TLS,
            Element::new("EapType")
                .attribute("xmlns", TLS)
                .child(Element::new("CredentialsSource").child(store))
                .child(self.server_validation("DisableUserPromptForServerValidation", "TrustedRootCA"))
                .child(Element::of("DifferentUsername", "false")),
        )
    }

    fn peap(&self) -> Element {
        let inner = base(
            TYPE_MS_CHAP,
            Element::new("EapType")
                .attribute("xmlns", MS_CHAP)
                .child(Element::of("UseWinLogonCredentials", "false")),
        );
        let extensions = Element::new("PeapExtensions")
            .child(Element::of("PerformServerValidation", "true").attribute("xmlns", PEAP_V2))
            .child(Element::of("AcceptServerName", "false").attribute("xmlns", PEAP_V2));
        base(
            TYPE_PEAP,
            Element::new("EapType")
                .attribute("xmlns", PEAP)
                .child(self.server_validation("DisableUserPromptForServerValidation", "TrustedRootCA"))
                .child(Element::of("FastReconnect", "true"))
                .child(Element::of("InnerEapOptional", "false"))
                .child(inner)
                .child(Element::of("EnableQuarantineChecks", "false"))
                .child(Element::of("RequireCryptoBinding", "false"))
                .child(extensions),
        )
    }

    fn ttls(&self) -> Element {
        let phase_2 =
            Element::new("MSCHAPv2Authentication").child(Element::of("UseWinlogonCredentials", "false"));
        Element::new("EapTtls")
            .attribute("xmlns", TTLS)
            .child(self.server_validation_ttls())
            .child(Element::new("Phase2Authentication").child(phase_2))
            .child(Element::new("Phase1Identity").child(Element::of("IdentityPrivacy", "false")))
    }

    /// The prompt is off where the roots decide.
    fn prompt(&self) -> &'static str {
        if self.roots.is_empty() { "false" } else { "true" }
    }

    fn server_validation(&self, prompt: &'static str, root: &'static str) -> Element {
        Element::new("ServerValidation")
            .child(Element::of(prompt, self.prompt()))
            .child(Element::new("ServerNames"))
            .children(
                self.roots
                    .iter()
                    .map(|thumbprint| Element::of(root, pairs(thumbprint))),
            )
    }

    fn server_validation_ttls(&self) -> Element {
        Element::new("ServerValidation")
            .child(Element::new("ServerNames"))
            .children(
                self.roots
                    .iter()
                    .map(|thumbprint| Element::of("TrustedRootCAHash", pairs(thumbprint))),
            )
            .child(Element::of("DisablePrompt", self.prompt()))
    }
}

fn base(kind: &str, method: Element) -> Element {
    Element::new("Eap")
        .attribute("xmlns", BASE)
        .child(Element::of("Type", kind))
        .child(method)
}

/// `AB12` as `ab 12`, the form of thumbprints in these schemas.
fn pairs(thumbprint: &str) -> String {
    let mut spaced = String::with_capacity(thumbprint.len() * 3 / 2);
    for (index, digit) in thumbprint.to_ascii_lowercase().chars().enumerate() {
        if index > 0 && index % 2 == 0 {
            spaced.push(' ');
        }
        spaced.push(digit);
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_judged_by_its_root_without_asking_the_user() {
        let roots = ["AB12".to_owned()];
        for method in [Method::Tls, Method::Peap, Method::Ttls] {
            let with = Eap {
                method,
                roots: &roots,
            }
            .host_config()
            .write();
            assert!(with.contains(">ab 12</TrustedRootCA"), "{with}");
            let without = Eap { method, roots: &[] }.host_config().write();
            assert!(!without.contains("TrustedRootCA"));
            roxmltree::Document::parse(&with).expect("it is well-formed");
        }
    }
}
