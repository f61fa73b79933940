//! Searches page by page (RFC 2696). References to other servers are counted and never followed.

use muster_ldap::{Entry, Filter, Page, Range, Response, Scope, Search, parse_range, search};

use super::config::Query;
use super::connect::{LdapError, Session, Step};

/// How long a directory may take for one page.
const TIME_LIMIT_SECONDS: u32 = 60;
/// Pages without an entry, one after the other: a directory that sends these forever is not waited for.
const EMPTY_PAGES_MAX: u32 = 100;
/// Answers that hold the values of one attribute.
const RANGES_MAX: u32 = 2_000;

/// How a search went.
#[derive(Debug, Default)]
pub struct Searched {
    /// Why not everything was read, where that is so.
    pub cut: Option<String>,
    pub referrals: usize,
}

/// What a search reads, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub page_entries: u32,
    pub entries_max: usize,
    pub pages_max: usize,
}

/// Reads every entry of a query and hands each on.
///
/// # Errors
/// The directory refused, or the connection ended. Where it only stopped early, the answer says so.
pub async fn every_entry(
    session: &mut Session,
    query: &Query,
    attributes: &[&str],
    bounds: Bounds,
    mut take: impl FnMut(Entry),
) -> Result<Searched, LdapError> {
    let mut all = Searched::default();
    let mut count = 0;
    for base in &query.bases {
        let (mut cookie, mut empty_pages, mut pages) = (Vec::new(), 0, 0);
        loop {
            let asked = Search {
                base,
                scope: query.scope,
                filter: &query.filter,
                attributes,
                time_limit_seconds: TIME_LIMIT_SECONDS,
                page: Some(Page {
                    size: bounds.page_entries,
                    cookie,
                }),
            };
            let before = count;
            let end = one(session, &asked, |entry| {
                count += 1;
                if count <= bounds.entries_max {
                    take(entry);
                }
            })
            .await?;
            all.referrals += end.referrals;
            if count > bounds.entries_max {
                all.cut = Some(format!("there are more than {} entries", bounds.entries_max));
                return Ok(all);
            }
            if let Some(cut) = end.cut {
                all.cut = Some(format!("{base}: {cut}"));
                break;
            }
            pages += 1;
            empty_pages = if count == before { empty_pages + 1 } else { 0 };
            cookie = end.cookie.unwrap_or_default();
            if cookie.is_empty() || pages == bounds.pages_max {
                break;
            }
            if empty_pages == EMPTY_PAGES_MAX {
                all.cut = Some(format!("{base}: page after page holds nothing"));
                break;
            }
        }
    }
    Ok(all)
}

/// The values of an attribute from a place on, where a directory answers only a part at a time (MS-ADTS, section
/// 3.1.1.3.1.3.3).
///
/// # Errors
/// The directory refused, or its parts do not follow each other.
pub async fn more_values(
    session: &mut Session,
    dn: &str,
    attribute: &str,
    first: u32,
    values_max: usize,
) -> Result<Vec<Vec<u8>>, LdapError> {
    let filter = Filter::Present("objectClass".to_owned());
    let wrong = |detail: &str| LdapError::new(Step::Search, format!("{attribute} of {dn}: {detail}"));
    let mut parts = Parts::new(attribute, first, values_max);
    for _ in 0..RANGES_MAX {
        let description = parts.description();
        let asked = Search {
            base: dn,
            scope: Scope::Base,
            filter: &filter,
            attributes: &[&description],
            time_limit_seconds: TIME_LIMIT_SECONDS,
            page: None,
        };
        let mut found = None;
        let end = one(session, &asked, |entry| found = Some(entry)).await?;
        if end.cut.is_some() {
            return Err(wrong("the directory stopped early"));
        }
        if parts.take(found.as_ref()).map_err(wrong)? {
            return Ok(parts.values);
        }
    }
    Err(wrong("it has too many parts"))
}

/// Values that come part by part. Pure: what to ask for out, what was found in.
pub struct Parts<'a> {
    attribute: &'a str,
    first: u32,
    values_max: usize,
    pub values: Vec<Vec<u8>>,
}

impl<'a> Parts<'a> {
    pub fn new(attribute: &'a str, first: u32, values_max: usize) -> Self {
        Self {
            attribute,
            first,
            values_max,
            values: Vec::new(),
        }
    }

    /// What to ask for next.
    pub fn description(&self) -> String {
        format!("{};range={}-*", self.attribute, self.first)
    }

    /// Takes a part; says whether it is the last one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, found: Option<&Entry>) -> Result<bool, &'static str> {
        let found = found.ok_or("the entry is gone")?;
        let Some((range, part)) = range_of(found, self.attribute) else {
            // Nothing is left: somebody took members away in the meantime, or the part before was the last one and full.
            return Ok(true);
        };
        if range.first != self.first {
            return Err("its parts do not follow each other");
        }
        self.values.extend_from_slice(part);
        if self.values.len() > self.values_max {
            return Err("it has more values than a group has members");
        }
        match range.last {
            None => Ok(true),
            Some(last) => {
                self.first = last.checked_add(1).ok_or("its parts have no end")?;
                Ok(false)
            }
        }
    }
}

/// The part of an attribute's values that an entry holds, where it holds only a part.
pub fn range_of<'a>(entry: &'a Entry, attribute: &str) -> Option<(Range, &'a [Vec<u8>])> {
    entry.attributes.iter().find_map(|(description, values)| {
        let (name, range) = parse_range(description)?;
        name.eq_ignore_ascii_case(attribute)
            .then_some((range, values.as_slice()))
    })
}

struct End {
    cookie: Option<Vec<u8>>,
    cut: Option<String>,
    referrals: usize,
}

/// One request and all its answers.
async fn one(
    session: &mut Session,
    asked: &Search<'_>,
    mut take: impl FnMut(Entry),
) -> Result<End, LdapError> {
    let failed = |detail: String| LdapError::new(Step::Search, format!("{}: {detail}", asked.base));
    let id = session.next_id();
    session
        .send(&search(id, asked))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut referrals = 0;
    loop {
        let message = session.receive(id).await.map_err(failed)?;
        let next_page = message.next_page();
        match message.response {
            Response::Entry(entry) => take(entry),
            Response::Reference(count) => referrals += count,
            Response::SearchDone(outcome) => {
                let cut = match outcome {
                    outcome if outcome.is_success() => None,
                    outcome if outcome.is_cut_off() => Some(outcome.sentence()),
                    outcome if outcome.is_referral => {
                        return Err(failed(
                            "the directory names another server for it, and references are not followed"
                                .to_owned(),
                        ));
                    }
                    outcome => return Err(failed(outcome.sentence())),
                };
                let cookie = next_page.map_err(|error| failed(error.to_string()))?;
                return Ok(End {
                    cookie,
                    cut,
                    referrals,
                });
            }
            Response::Bound(_) | Response::Extended(_) | Response::Other(_) => {}
        }
    }
}
