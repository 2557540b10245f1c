//! Lists in pages.

use core::ops::RangeInclusive;

use serde::Serialize;

use crate::{
    error::ApiError,
    params::{Params, read},
};

/// Last page that may be asked for. Documented for domains; elsewhere it keeps `num * size` far from overflowing.
const NUM_MAX: i64 = 100_000;

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From 1 to 100,000.
    pub num: i64,
    /// At least 1.
    pub size: i64,
}

impl Page {
    /// `PageNum` and `PageSize`, with page 1 and `size_default` when absent.
    pub(super) fn optional(
        params: &mut Params,
        sizes: RangeInclusive<i64>,
        size_default: i64,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            num: params.optional("PageNum", read::int(1..=NUM_MAX))?.unwrap_or(1),
            size: params.optional("PageSize", read::int(sizes))?.unwrap_or(size_default),
        })
    }

    /// The same, where neither may be absent.
    pub(super) fn required(params: &mut Params, sizes: RangeInclusive<i64>) -> Result<Self, ApiError> {
        Ok(Self {
            num: params.required("PageNum", read::int(1..=NUM_MAX))?,
            size: params.required("PageSize", read::int(sizes))?,
        })
    }

    /// How many items stand before this page.
    pub fn offset(self) -> i64 {
        (self.num - 1) * self.size
    }

    /// What the answer says about a list of `total` items.
    pub fn of(self, total: i64) -> Paging {
        let full = total / self.size;
        let total_page = full + i64::from(total % self.size > 0);
        Paging { total_num: total, total_page, page_num: self.num, page_size: self.size }
    }
}

/// The same in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Paging {
    pub total_num: i64,
    pub total_page: i64,
    pub page_num: i64,
    pub page_size: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_pages() {
        for (total, num, size, offset, pages) in [
            (0, 1, 10, 0, 0),
            (1, 1, 10, 0, 1),
            (10, 1, 10, 0, 1),
            (11, 2, 10, 10, 2),
            (i64::MAX, 100_000, 300_000, 29_999_700_000, i64::MAX / 300_000 + 1),
        ] {
            let page = Page { num, size };
            assert_eq!(page.offset(), offset);
            assert_eq!(page.of(total), Paging { total_num: total, total_page: pages, page_num: num, page_size: size });
        }
    }
}
