//! Whether callbacks may go where the configuration says: judged when it is read, and again at each attempt, since a name
//! may resolve to something else by then.

use std::sync::Arc;
use std::time::Duration;

use framehook_domain::template::CallbackUrl;
use tokio::task::JoinSet;

use crate::config::{Config, ConfigError, Declared, Problem};
use crate::notify::address::AddressPolicy;
use crate::notify::attempt_error::AttemptError;
use crate::notify::endpoint::Endpoint;
use crate::notify::resolve::Resolver;

/// Time for resolving all names together. A name that does not resolve by then is let through: a server that starts while
/// its resolver is away must start, and the sender judges every address anyway.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(5);

/// Refuses callback URLs whose host is, or resolves now to, an address that callbacks may not go to.
///
/// # Errors
/// Every such URL, and every URL that no request can be made of.
pub async fn check_receivers(config: &Config) -> Result<(), ConfigError> {
    let resolver = Arc::new(Resolver::new(AddressPolicy::new(config.deliver.allow_receiver.clone())));
    let mut problems = Vec::new();
    let mut lookups = JoinSet::new();
    for (key, url) in urls(&config.declared) {
        let url = url.clone();
        match Endpoint::parse(url.expose().as_str()) {
            Ok(endpoint) => {
                let resolver = Arc::clone(&resolver);
                lookups.spawn(async move { (key, url.to_string(), resolver.addresses(&endpoint).await) });
            }
            Err(error) => problems.push(Problem::in_file(key, None, error.to_string())),
        }
    }
    let judge = async {
        while let Some(judged) = lookups.join_next().await {
            if let Ok((key, url, Err(AttemptError::AddressForbidden { host, address, class }))) = judged {
                let what = format!(
                    "{host} is at {address}, which is {class}; if that is right, allow it with --allow-receiver {address}"
                );
                problems.push(Problem::in_file(key, Some(format!("{url:?}")), what));
            }
        }
    };
    // Lookups that are still under way are dropped with their set.
    let _ = tokio::time::timeout(RESOLVE_PATIENCE, judge).await;
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
