//! Numbered changes of the schema, applied in order, once, each together with its bookkeeping row.
//!
//! One SQL text serves both engines, so it keeps to `BIGINT`, `TEXT`, `BYTEA`, `UUID`, `BOOLEAN` and to syntax that both
//! understand. It is executed statement by statement; triggers and dollar quotes are not supported.

use crate::{error::StorageError, statement};

/// One numbered change of the schema. Never edited once it has shipped.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// 1 for the first; ascending without gaps.
    pub version: u32,
    /// A short name for people.
    pub name: &'static str,
    /// The statements, separated by `;`.
    pub sql: &'static str,
}

/// Tables of this crate, made before the first migration.
pub(crate) const OWN_TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS storage_migration (
        version BIGINT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS storage_lease (
        name TEXT PRIMARY KEY, holder TEXT NOT NULL, token BIGINT NOT NULL, expires_at BIGINT NOT NULL)",
];
pub(crate) const APPLIED: &str = "SELECT version, name, digest FROM storage_migration ORDER BY version";

/// A row of `storage_migration`.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub version: i64,
    pub name: String,
    pub digest: String,
}

impl Migration {
    /// The single statements.
    pub(crate) fn statements(&self) -> Vec<String> {
        statement::split(self.sql)
    }

    /// FNV-1a over the statements with white space folded: it finds an edit, it is no protection against a forger.
    pub(crate) fn digest(&self) -> String {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for statement in self.statements() {
            for byte in statement
                .split_whitespace()
                .flat_map(|word| word.bytes().chain([b' ']))
                .chain([b';'])
            {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        format!("{hash:016x}")
    }
}

/// Decides which migrations still have to run.
pub(crate) fn pending(
    known: &'static [Migration],
    applied: &[Applied],
) -> Result<&'static [Migration], StorageError> {
    for (migration, expected) in known.iter().zip(1..) {
        if migration.version != expected {
            return Err(StorageError::MigrationOrder {
                expected,
                found: migration.version,
            });
        }
    }
    let newest_known = known.len() as u32;
    let newest = applied.last().map_or(0, |row| row.version);
    let newest = u32::try_from(newest).unwrap_or(u32::MAX);
    if newest > newest_known {
        return Err(StorageError::NewerSchema {
            found: newest,
            known: newest_known,
        });
    }
    for (migration, row) in known.iter().zip(applied) {
        if i64::from(migration.version) != row.version || migration.digest() != row.digest {
            return Err(StorageError::MigrationChanged {
                version: migration.version,
                name: row.name.clone(),
            });
        }
    }
    Ok(known.get(applied.len()..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration {
        version: 1,
        name: "one",
        sql: "CREATE TABLE a (b TEXT); -- c",
    };
    const TWO: Migration = Migration {
        version: 2,
        name: "two",
        sql: "CREATE TABLE d (e TEXT);",
    };

    fn row(of: &Migration) -> Applied {
        Applied {
            version: i64::from(of.version),
            name: of.name.to_owned(),
            digest: of.digest(),
        }
    }

    #[test]
    fn only_the_missing_ones_run() {
        const KNOWN: &[Migration] = &[ONE, TWO];
        let versions = |applied: &[Applied]| -> Vec<u32> {
            pending(KNOWN, applied)
                .expect("known")
                .iter()
                .map(|migration| migration.version)
                .collect()
        };
        assert_eq!(versions(&[]), [1, 2]);
        assert_eq!(versions(&[row(&ONE)]), [2]);
        assert_eq!(versions(&[row(&ONE), row(&TWO)]), [0u32; 0]);
    }

    #[test]
    fn a_newer_schema_an_edited_migration_and_a_gap_are_refused() {
        const KNOWN: &[Migration] = &[ONE];
        const GAP: &[Migration] = &[TWO];
        let newer = pending(KNOWN, &[row(&ONE), row(&TWO)]);
        assert!(matches!(
            newer,
            Err(StorageError::NewerSchema { found: 2, known: 1 })
        ));
        let edited = pending(
            KNOWN,
            &[Applied {
                digest: "0".to_owned(),
                ..row(&ONE)
            }],
        );
        assert!(matches!(
            edited,
            Err(StorageError::MigrationChanged { version: 1, .. })
        ));
        assert!(matches!(
            pending(GAP, &[]),
            Err(StorageError::MigrationOrder {
                expected: 1,
                found: 2
            })
        ));
    }

    #[test]
    fn white_space_and_comments_do_not_change_the_digest() {
        let reworded = Migration {
            sql: "-- other words\nCREATE TABLE a\n (b TEXT)",
            ..ONE
        };
        assert_eq!(reworded.digest(), ONE.digest());
        assert_ne!(TWO.digest(), ONE.digest());
    }
}
