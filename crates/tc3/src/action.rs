//! The actions: what each asks for, within the limits that the documents give, and what it answers.
//!
//! A noun has a module. Requests are read from [`Params`]; what the documents default is filled in, except where absent
//! means "unchanged". Numbers are as on the wire: durations in seconds, sizes in pixels, unless a type says otherwise.

pub mod callback_record;
pub mod callback_rule;
pub mod callback_template;
pub mod domain;
mod errors;
pub mod page;
pub mod push_auth_key;
mod response;
pub mod screenshot_count;
pub mod screenshot_task;
pub mod snapshot_rule;
pub mod snapshot_template;
pub mod stream;
pub mod stream_event;
pub mod template;
pub mod window;

use core::fmt;

pub use response::Response;

use crate::{
    error::{self, ApiError, ErrorCode},
    params::Params,
    time::UnixSecs,
};

/// How an action's request is read. `now` judges windows of time.
trait FromParams: Sized {
    fn from_params(params: &mut Params, now: UnixSecs) -> Result<Self, ApiError>;
}

/// The request of an action that takes no parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoParameters;

impl FromParams for NoParameters {
    fn from_params(_: &mut Params, _: UnixSecs) -> Result<Self, ApiError> {
        Ok(Self)
    }
}

macro_rules! actions {
    ($($name:ident($request:ty),)+) => {
        /// An action by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($name,)+
        }

        /// What an action asks for.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $($name($request),)+
        }

        impl Action {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }

        impl Request {
            fn read(action: Action, params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
                match action {
                    $(Action::$name => <$request>::from_params(params, now).map(Self::$name),)+
                }
            }

            pub const fn action(&self) -> Action {
                match self {
                    $(Self::$name(_) => Action::$name,)+
                }
            }
        }
    };
}

actions! {
    CreateLiveSnapshotTemplate(snapshot_template::CreateSnapshotTemplate),
    DescribeLiveSnapshotTemplate(template::OneTemplate),
    DescribeLiveSnapshotTemplates(NoParameters),
    ModifyLiveSnapshotTemplate(snapshot_template::ModifySnapshotTemplate),
    DeleteLiveSnapshotTemplate(template::OneTemplate),
    CreateLiveSnapshotRule(snapshot_rule::CreateSnapshotRule),
    DescribeLiveSnapshotRules(NoParameters),
    DeleteLiveSnapshotRule(snapshot_rule::SnapshotRuleScope),

    CreateLiveCallbackTemplate(callback_template::CreateCallbackTemplate),
    DescribeLiveCallbackTemplate(template::OneTemplate),
    DescribeLiveCallbackTemplates(NoParameters),
    ModifyLiveCallbackTemplate(callback_template::ModifyCallbackTemplate),
    DeleteLiveCallbackTemplate(template::OneTemplate),
    CreateLiveCallbackRule(callback_rule::CreateCallbackRule),
    DescribeLiveCallbackRules(NoParameters),
    DeleteLiveCallbackRule(callback_rule::CallbackRuleScope),

    CreateScreenshotTask(screenshot_task::CreateScreenshotTask),
    DescribeScreenshotTask(screenshot_task::DescribeScreenshotTask),
    StopScreenshotTask(screenshot_task::OneTask),
    DeleteScreenshotTask(screenshot_task::OneTask),

    DescribeCallbackRecordsList(callback_record::DescribeCallbackRecords),
    DescribeScreenShotSheetNumList(screenshot_count::DescribeScreenshotCounts),

    AddLiveDomain(domain::AddDomain),
    DeleteLiveDomain(domain::DeleteDomain),
    DescribeLiveDomain(domain::OneDomain),
    DescribeLiveDomains(domain::DescribeDomains),
    EnableLiveDomain(domain::OneDomain),
    ForbidLiveDomain(domain::OneDomain),
    DescribeLivePushAuthKey(domain::OneDomain),
    ModifyLivePushAuthKey(push_auth_key::ModifyPushAuthKey),

    DescribeLiveStreamOnlineList(stream::DescribeOnlineStreams),
    DescribeLiveStreamState(stream::OneStream),
    DropLiveStream(stream::OneStream),
    ForbidLiveStream(stream::ForbidStream),
    ResumeLiveStream(stream::OneStream),
    DescribeLiveForbidStreamList(stream::DescribeForbiddenStreams),
    DescribeLiveStreamEventList(stream_event::DescribeStreamEvents),
}

impl Action {
    /// # Errors
    /// `InvalidAction`.
    pub fn named(name: &str) -> Result<Self, ApiError> {
        Self::ALL.iter().copied().find(|action| action.name() == name).ok_or_else(|| {
            let message = alloc::format!("The action `{}` is invalid or not found.", error::shown(name));
            ApiError::new(ErrorCode::InvalidAction, message)
        })
    }
}

impl Action {
    /// Whether it changes nothing. The vendor names all of these, and no others, `Describe…`.
    pub fn only_reads(self) -> bool {
        self.name().starts_with("Describe")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Request {
    /// Reads the parameters of `action`; [`Params::unread`] then tells which ones it does not know.
    ///
    /// # Errors
    /// `MissingParameter`, `InvalidParameter` (wrong type or form), `InvalidParameterValue` (not allowed), or a narrower code
    /// of the same family that the action's documents name. The first of several faults is told.
    pub fn parse(action: Action, params: &mut Params, now: UnixSecs) -> Result<Self, ApiError> {
        Self::read(action, params, now).map_err(|error| {
            let code = action.nearest(error.code);
            error.with_code(code)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_found_by_its_name() {
        for action in Action::ALL {
            assert_eq!(Action::named(action.name()), Ok(*action));
        }
        assert_eq!(Action::ALL.len(), 37);
    }

    #[test]
    fn other_names_are_invalid_actions() {
        for name in ["", "createLiveSnapshotTemplate", "DescribeLiveWatermarks", "CreateLivePullStreamTask", "\0"] {
            assert_eq!(Action::named(name).map_err(|error| error.code), Err(ErrorCode::InvalidAction), "{name}");
        }
    }
}
