//! Keyset paging: `?cursor=&limit=` in, `{"items": […], "next_cursor": …}` out.

use serde::{Deserialize, Serialize};

use crate::access::problem::{CURSOR_INVALID, Problem};

/// The largest page that a list answers.
pub const PAGE_ITEMS_MAX: usize = 500;
const PAGE_ITEMS: usize = 100;

/// The paging parameters of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Items on a page, at most 500.
    pub limit: Option<usize>,
}

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Send it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// How many items to answer, whatever was asked.
pub fn page_limit(asked: Option<usize>) -> usize {
    asked.unwrap_or(PAGE_ITEMS).clamp(1, PAGE_ITEMS_MAX)
}

/// Reads a cursor as the id that it holds.
pub fn cursor<T: std::str::FromStr>(text: Option<&str>) -> Result<Option<T>, Problem> {
    text.map(|text| {
        text.parse()
            .map_err(|_| CURSOR_INVALID.detail("Send next_cursor of the page before, or no cursor."))
    })
    .transpose()
}

impl<T> Page<T> {
    /// Makes a page from `limit + 1` rows: the extra one only says that there is more.
    pub fn of(mut items: Vec<T>, limit: usize, cursor_of: impl Fn(&T) -> String) -> Page<T> {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = if more { items.last().map(cursor_of) } else { None };
        Page { items, next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d10_a_huge_limit_is_a_page() {
        assert_eq!(page_limit(Some(1_000_000_000)), PAGE_ITEMS_MAX);
        assert_eq!(page_limit(Some(0)), 1);
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = Page::of(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((page.items, page.next_cursor), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(Page::of(vec![1, 2], 2, ToString::to_string).next_cursor, None);
    }
}
