//! A vector of optional entries in pages of 64 behind `Arc`: copying it costs a pointer per page, changing an entry one page.

use std::sync::Arc;

const PAGE: usize = 64;

type Page<T> = [Option<T>; PAGE];

#[derive(Debug, Clone)]
pub(crate) struct Paged<T> {
    pages: Vec<Arc<Page<T>>>,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T: Clone> Paged<T> {
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index / PAGE)?.get(index % PAGE)?.as_ref()
    }

    pub(crate) fn set(&mut self, index: usize, value: Option<T>) {
        let page = index / PAGE;
        while self.pages.len() <= page {
            self.pages.push(Arc::new([const { None }; PAGE]));
        }
        if let Some(page) = self.pages.get_mut(page)
            && let Some(entry) = Arc::make_mut(page).get_mut(index % PAGE)
        {
            *entry = value;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter().flatten())
    }
}
