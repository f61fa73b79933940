//! Security event tokens are signed at the moment in which they are sent: the time of their issue is that.

use muster_model::TenantId;
use muster_ssf::TokenType;
use serde_json::{Map, Value, json};

use super::{carrier::Item, place::SinkPlace};
use crate::{App, access::problem::Problem, signals};

/// Makes tokens of claims, where the place takes tokens.
pub async fn signed(
    app: &App,
    tenant: TenantId,
    place: &SinkPlace,
    mut items: Vec<Item>,
) -> Result<Vec<Item>, Problem> {
    let SinkPlace::Ssf { audience, url } = place else {
        return Ok(items);
    };
    let audience = audience.as_deref().unwrap_or(url);
    let signer = signals::signer(app, tenant).await?;
    let iat = app.clock.now().as_unix_seconds();
    for item in &mut items {
        let mut claims: Map<String, Value> =
            serde_json::from_str(&item.document).map_err(Problem::internal)?;
        claims.insert("iss".to_owned(), json!(signer.issuer));
        claims.insert("aud".to_owned(), json!(audience));
        claims.insert("iat".to_owned(), json!(iat));
        item.document = signer.sign(TokenType::SecurityEvent, &claims)?;
    }
    Ok(items)
}
