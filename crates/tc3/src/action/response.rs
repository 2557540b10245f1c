//! What actions answer.

use alloc::{string::String, vec::Vec};

use serde::Serialize;

use super::{
    callback_record::CallbackRecord,
    callback_rule::CallbackRuleInfo,
    callback_template::CallbackTemplateInfo,
    domain::DomainInfo,
    page::Paging,
    push_auth_key::PushAuthKeyInfo,
    screenshot_count::ScreenshotCount,
    screenshot_task::ScreenshotTask,
    snapshot_rule::SnapshotRuleInfo,
    snapshot_template::SnapshotTemplateInfo,
    stream::{ForbiddenStream, OnlineStream, StreamState},
    stream_event::StreamEvent,
};

/// The fields of an answer beside its `RequestId`, under the names that SDKs read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged, rename_all_fields = "PascalCase")]
pub enum Response {
    /// Nothing but success: every action that modifies, deletes, binds, enables, forbids, drops, resumes or stops.
    Done {},
    /// `CreateLiveSnapshotTemplate`, `CreateLiveCallbackTemplate`.
    TemplateCreated { template_id: i64 },
    /// `DescribeLiveSnapshotTemplate`.
    SnapshotTemplate { template: SnapshotTemplateInfo },
    /// `DescribeLiveSnapshotTemplates`.
    SnapshotTemplates { templates: Vec<SnapshotTemplateInfo> },
    /// `DescribeLiveSnapshotRules`.
    SnapshotRules { rules: Vec<SnapshotRuleInfo> },
    /// `DescribeLiveCallbackTemplate`.
    CallbackTemplate { template: CallbackTemplateInfo },
    /// `DescribeLiveCallbackTemplates`.
    CallbackTemplates { templates: Vec<CallbackTemplateInfo> },
    /// `DescribeLiveCallbackRules`.
    CallbackRules { rules: Vec<CallbackRuleInfo> },
    /// `CreateScreenshotTask`.
    TaskCreated { task_id: String },
    /// `DescribeScreenshotTask`; an empty token ends the list.
    Tasks { scroll_token: String, task_list: Vec<ScreenshotTask> },
    /// `DescribeCallbackRecordsList`.
    CallbackRecords {
        data_info_list: Vec<CallbackRecord>,
        #[serde(flatten)]
        paging: Paging,
    },
    /// `DescribeScreenShotSheetNumList`.
    ScreenshotCounts { data_info_list: Vec<ScreenshotCount> },
    /// `DescribeLiveDomain`.
    Domain { domain_info: DomainInfo },
    /// `DescribeLiveDomains`.
    Domains {
        /// How many fit the filter.
        all_count: i64,
        domain_list: Vec<DomainInfo>,
        /// How many more may be added.
        create_limit_count: i64,
        /// Play domains switched on: mainland, global, outside.
        play_type_count: [i64; 3],
    },
    /// `DescribeLivePushAuthKey`.
    PushAuthKey { push_auth_key_info: PushAuthKeyInfo },
    /// `DescribeLiveStreamOnlineList`.
    OnlineStreams {
        online_info: Vec<OnlineStream>,
        #[serde(flatten)]
        paging: Paging,
    },
    /// `DescribeLiveStreamState`.
    StreamState { stream_state: StreamState },
    /// `DescribeLiveForbidStreamList`.
    ForbiddenStreams {
        forbid_stream_list: Vec<ForbiddenStream>,
        #[serde(flatten)]
        paging: Paging,
    },
    /// `DescribeLiveStreamEventList`.
    StreamEvents {
        event_list: Vec<StreamEvent>,
        #[serde(flatten)]
        paging: Paging,
    },
}
