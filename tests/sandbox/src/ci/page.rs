//! Lists in parts.

/// Items on the largest page.
const MAX_SIZE: usize = 100;

/// One part of a list.
pub struct Page {
    /// Items on a page.
    pub size: usize,
    /// Which page, from 1.
    pub number: usize,
    /// Items in all.
    pub total: usize,
}

impl Page {
    /// The part that was asked for; `usual` items, unless another number is asked for.
    pub fn new(size: Option<usize>, number: Option<usize>, usual: usize, total: usize) -> Self {
        Self {
            size: size.unwrap_or(usual).clamp(1, MAX_SIZE),
            number: number.unwrap_or(1).max(1),
            total,
        }
    }

    /// How many there are; an empty list has one.
    pub fn pages(&self) -> usize {
        self.total.div_ceil(self.size).max(1)
    }

    /// The page after it.
    pub fn next(&self) -> Option<usize> {
        (self.number < self.pages()).then(|| self.number + 1)
    }

    /// The page before it.
    pub fn previous(&self) -> Option<usize> {
        self.number.checked_sub(1).filter(|number| *number > 0)
    }

    /// What is on it.
    pub fn part<T>(&self, all: Vec<T>) -> Vec<T> {
        all.into_iter()
            .skip((self.number - 1).saturating_mul(self.size))
            .take(self.size)
            .collect()
    }

    /// The header `Link`: where the other pages are, if there are any.
    pub fn links(&self, url: impl Fn(usize) -> String) -> String {
        let link = |number: usize, name: &str| format!("<{}>; rel=\"{name}\"", url(number));
        let mut links = Vec::new();
        if let Some(previous) = self.previous() {
            links.extend([link(previous, "prev"), link(1, "first")]);
        }
        if let Some(next) = self.next() {
            links.extend([link(next, "next"), link(self.pages(), "last")]);
        }
        links.join(", ")
    }
}
