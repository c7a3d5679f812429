//! A metadata service that does not answer.

/// Whether the service has fallen silent: said once, however often it is asked.
#[derive(Default)]
pub struct Silence(bool);

impl Silence {
    /// What came of a question: an error, or none.
    pub fn heard(&mut self, error: Option<&anyhow::Error>) {
        match error {
            Some(error) if self.0 => tracing::debug!("the metadata service does not answer: {error:#}"),
            Some(error) => tracing::warn!("the metadata service does not answer, a spot notice would not be seen: {error:#}"),
            None => {}
        }
        self.0 = error.is_some();
    }
}
