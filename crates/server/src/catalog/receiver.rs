//! Whether callbacks may go where a configuration or a person says: judged when it is said, and again at each attempt,
//! since a name may resolve to something else by then.

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::template::CallbackUrl;
use tokio::task::JoinSet;

use crate::config::{Config, ConfigError, Declared, Problem};
use crate::notify::address::AddressPolicy;
use crate::notify::attempt_error::AttemptError;
use crate::notify::endpoint::Endpoint;
use crate::notify::resolve::Resolver;

/// Time for resolving names at a start and when a person asks. One that does not resolve by then is let through: a server
/// that starts while its resolver is away must start, and the sender judges every address anyway.
pub(super) const RESOLVE_PATIENCE: Duration = Duration::from_secs(5);

/// The same at a reload: a rule must apply within a second, whatever DNS does.
pub(super) const RELOAD_PATIENCE: Duration = Duration::from_millis(500);

/// A URL that callbacks may not go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForbiddenReceiver {
    /// Without what it keeps secret; `None` if no request can be made of it.
    pub(crate) url: Option<String>,
    pub(crate) what: String,
}

/// Refuses a URL whose host is, or resolves now to, an address that callbacks may not go to.
///
/// # Errors
/// Why, for a person.
pub(crate) async fn check_receiver(resolver: &Resolver, url: &CallbackUrl) -> Result<(), ForbiddenReceiver> {
    check_within(resolver, url, RESOLVE_PATIENCE).await
}

async fn check_within(resolver: &Resolver, url: &CallbackUrl, patience: Duration) -> Result<(), ForbiddenReceiver> {
    let endpoint = Endpoint::parse(url.expose().as_str())
        .map_err(|error| ForbiddenReceiver { url: None, what: error.to_string() })?;
    let resolved = tokio::time::timeout(patience, resolver.addresses(&endpoint)).await;
    let Ok(Err(AttemptError::AddressForbidden { host, address, class })) = resolved else { return Ok(()) };
    let place = if host == address.to_string() { host } else { format!("{host} is at {address}, which") };
    let what = format!("{place} is {class}; if that is right, allow it with --allow-receiver {address}");
    Err(ForbiddenReceiver { url: Some(endpoint.to_string()), what })
}

/// Refuses every callback URL of the file that leads to an address that the file does not allow.
///
/// # Errors
/// A problem for each.
pub async fn check_receivers(config: &Config) -> Result<(), ConfigError> {
    let resolver = Resolver::new(AddressPolicy::new(config.deliver.allow_receiver.clone()));
    check_declared(&Arc::new(resolver), &config.declared, RESOLVE_PATIENCE).await
}

/// Refuses every declared callback URL whose host is, or resolves within `patience` to, an address that callbacks may not
/// go to by the resolver's policy. All are looked up at the same time.
///
/// # Errors
/// A problem for each.
pub(super) async fn check_declared(
    resolver: &Arc<Resolver>,
    declared: &Declared,
    patience: Duration,
) -> Result<(), ConfigError> {
    let mut lookups = JoinSet::new();
    for (key, url) in urls(declared) {
        let (resolver, url) = (Arc::clone(resolver), url.clone());
        lookups.spawn(async move { (key, check_within(&resolver, &url, patience).await) });
    }
    let mut problems: Vec<Problem> = lookups
        .join_all()
        .await
        .into_iter()
        .filter_map(|(key, judged)| {
            let ForbiddenReceiver { url, what } = judged.err()?;
            Some(Problem::in_file(key, url.map(|url| format!("{url:?}")), what))
        })
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort_by(|a, b| a.key.cmp(&b.key));
    Err(ConfigError { problems })
}

/// Every URL that is sent to, with its key in the file.
fn urls(declared: &Declared) -> impl Iterator<Item = (String, &CallbackUrl)> {
    declared.callback_templates.iter().enumerate().flat_map(|(index, template)| {
        let urls = [
            ("snapshot_notify_url", &template.urls.snapshot_notify),
            ("stream_begin_notify_url", &template.urls.stream_begin_notify),
            ("stream_end_notify_url", &template.urls.stream_end_notify),
        ];
        urls.into_iter()
            .filter_map(move |(field, url)| Some((format!("callback_template[{}].{field}", index + 1), url.as_ref()?)))
    })
}
