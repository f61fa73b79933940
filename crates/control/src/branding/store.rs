//! SQL of the `branding_look` table.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::{Accent, Logo, Look, Support};

statements! {
    LOOK = "SELECT display_name, accent_light, accent_dark, support_mail, support_phone, support_url, signin_notice, \
        logo_address, logo_width, logo_height, changed_by, changed_at FROM branding_look WHERE tenant_id = $1";
    PUT_LOOK = "INSERT INTO branding_look (tenant_id, display_name, accent_light, accent_dark, support_mail, support_phone, \
        support_url, signin_notice, changed_by, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
        ON CONFLICT (tenant_id) DO UPDATE SET display_name = excluded.display_name, accent_light = excluded.accent_light, \
        accent_dark = excluded.accent_dark, support_mail = excluded.support_mail, support_phone = excluded.support_phone, \
        support_url = excluded.support_url, signin_notice = excluded.signin_notice, changed_by = excluded.changed_by, \
        changed_at = excluded.changed_at";
    PUT_LOGO = "INSERT INTO branding_look (tenant_id, logo, logo_address, logo_width, logo_height, changed_by, changed_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id) DO UPDATE SET logo = excluded.logo, \
        logo_address = excluded.logo_address, logo_width = excluded.logo_width, logo_height = excluded.logo_height, \
        changed_by = excluded.changed_by, changed_at = excluded.changed_at";
    REMOVE_LOGO = "UPDATE branding_look SET logo = NULL, logo_address = NULL, logo_width = NULL, logo_height = NULL, \
        changed_by = $2, changed_at = $3 WHERE tenant_id = $1 AND logo_address IS NOT NULL";
    LOGO_AT = "SELECT logo FROM branding_look WHERE logo_address = $1";
}

fn look_of(row: &Row<'_>) -> Result<Look, StorageError> {
    let side = |index: usize| -> Result<u32, StorageError> {
        let stored = row.get::<Option<i64>>(index)?;
        Ok(stored
            .and_then(|stored| u32::try_from(stored).ok())
            .unwrap_or_default())
    };
    let light: String = row.get(1)?;
    let address: Option<String> = row.get(7)?;
    Ok(Look {
        display_name: row.get(0)?,
        accent: match light.is_empty() {
            true => None,
            false => Some(Accent {
                light,
                dark: row.get(2)?,
            }),
        },
        support: Support {
            mail: row.get(3)?,
            phone: row.get(4)?,
            url: row.get(5)?,
        },
        signin_notice: row.get(6)?,
        logo: match address {
            Some(address) => Some(Logo {
                address,
                width: side(8)?,
                height: side(9)?,
            }),
            None => None,
        },
        changed_by: row.get(10)?,
        changed_at: Timestamp::from_micros(row.get(11)?),
    })
}

pub fn look(tx: &mut Tx, tenant: TenantId) -> Result<Option<Look>, StorageError> {
    tx.query_opt(&LOOK, &[&tenant.uuid()], look_of)
}

/// Everything but the logo.
pub fn put_look(tx: &mut Tx, tenant: TenantId, look: &Look) -> Result<(), StorageError> {
    let (light, dark) = look
        .accent
        .as_ref()
        .map_or(("", ""), |accent| (&accent.light, &accent.dark));
    tx.execute(
        &PUT_LOOK,
        &[
            &tenant.uuid(),
            &look.display_name,
            &light,
            &dark,
            &look.support.mail,
            &look.support.phone,
            &look.support.url,
            &look.signin_notice,
            &look.changed_by,
            &look.changed_at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn put_logo(
    tx: &mut Tx,
    tenant: TenantId,
    (logo, bytes): (&Logo, &[u8]),
    (by, at): (&str, Timestamp),
) -> Result<(), StorageError> {
    tx.execute(
        &PUT_LOGO,
        &[
            &tenant.uuid(),
            &bytes,
            &logo.address,
            &i64::from(logo.width),
            &i64::from(logo.height),
            &by,
            &at.as_micros(),
        ],
    )
    .map(drop)
}

/// Answers how many rows changed: none where there was no logo.
pub fn remove_logo(tx: &mut Tx, tenant: TenantId, (by, at): (&str, Timestamp)) -> Result<u64, StorageError> {
    tx.execute(&REMOVE_LOGO, &[&tenant.uuid(), &by, &at.as_micros()])
}

/// The logo of whatever tenant has one at this address.
pub fn logo_at(tx: &mut Tx, address: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let found = tx.query_opt(&LOGO_AT, &[&address], |row| row.get::<Option<Vec<u8>>>(0))?;
    Ok(found.flatten())
}
