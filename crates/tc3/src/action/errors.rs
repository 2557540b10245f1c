//! Which codes the documents of an action name.

use super::Action;
use crate::error::ErrorCode::{self, *};

/// States of an account at the vendor, named by every action.
const ACCOUNT: &[ErrorCode] = &[
    ResourceNotFoundForbidService,
    ResourceNotFoundFreezeService,
    ResourceNotFoundStopService,
    ResourceNotFoundUserDisableService,
];

/// Named by every action on templates and snapshot rules.
const TEMPLATES_AND_RULES: &[ErrorCode] = &[
    InternalErrorArgsNotMatch,
    InternalErrorConfInUsed,
    InternalErrorConfNotFound,
    InternalErrorInvalidInput,
    InternalErrorNotFound,
    InternalErrorRuleAlreadyExist,
    InternalErrorRuleInUsing,
    InternalErrorRuleNotFound,
];

/// Named by every action on live streams.
const STREAMS: &[ErrorCode] = &[
    FailedOperationCallOtherSvrFailed,
    InternalErrorCallOtherSvrError,
    InternalErrorConfigNotExist,
    InternalErrorGetBizidError,
    InternalErrorGetStreamInfoError,
    InternalErrorGetUpstreamInfoError,
    InternalErrorNotPermmitOperat,
    InternalErrorStreamStatusError,
    InternalErrorUpdateDataError,
    ResourceNotFoundUserNotExist,
];

impl Action {
    /// Whether the action may answer `code`: one that any action may, or one that its documents name.
    pub fn documents(self, code: ErrorCode) -> bool {
        code.is_common() || ACCOUNT.contains(&code) || self.own_codes().iter().any(|codes| codes.contains(&code))
    }

    /// `code` if the action documents it, else its family: programs know what to do with `InvalidParameter` where
    /// `InvalidParameter.DomainFormatError` would be news to them.
    pub fn nearest(self, code: ErrorCode) -> ErrorCode {
        if self.documents(code) { code } else { code.family() }
    }

    fn own_codes(self) -> &'static [&'static [ErrorCode]] {
        match self {
            Self::CreateLiveSnapshotTemplate => &[
                TEMPLATES_AND_RULES,
                &[
                    FailedOperationCallOtherSvrFailed,
                    FailedOperationCosBucketNotExist,
                    FailedOperationCosBucketNotPermission,
                    FailedOperationCosRoleNotExists,
                    InternalErrorConfOutLimit,
                    InvalidParameterCosCustomFileNameError,
                    UnsupportedOperationNotLvbCodeMode,
                ],
            ],
            Self::DescribeLiveSnapshotTemplate => &[
                TEMPLATES_AND_RULES,
                &[
                    FailedOperationNotFound,
                    InternalErrorConfOutLimit,
                    InternalErrorRuleOutLimit,
                    UnsupportedOperationNotLvbCodeMode,
                ],
            ],
            Self::DescribeLiveSnapshotTemplates => &[TEMPLATES_AND_RULES, &[UnsupportedOperationNotLvbCodeMode]],
            Self::ModifyLiveSnapshotTemplate => &[
                TEMPLATES_AND_RULES,
                &[
                    FailedOperationCallOtherSvrFailed,
                    FailedOperationCosBucketNotExist,
                    FailedOperationCosBucketNotPermission,
                    FailedOperationCosRoleNotExists,
                    FailedOperationNotFound,
                    InvalidParameterCosCustomFileNameError,
                    UnsupportedOperationNotLvbCodeMode,
                ],
            ],
            Self::DeleteLiveSnapshotTemplate => &[TEMPLATES_AND_RULES, &[FailedOperationConfInUsed]],
            Self::CreateLiveSnapshotRule => &[
                TEMPLATES_AND_RULES,
                &[FailedOperationRuleAlreadyExist, InvalidParameterConfNotFound, InvalidParameterDomainFormatError],
            ],
            Self::DescribeLiveSnapshotRules => &[TEMPLATES_AND_RULES],
            Self::DeleteLiveSnapshotRule => {
                &[TEMPLATES_AND_RULES, &[FailedOperationNotFound, InvalidParameterDomainFormatError]]
            }
            Self::CreateLiveCallbackTemplate => &[
                TEMPLATES_AND_RULES,
                &[
                    FailedOperationConfInUsed,
                    FailedOperationNotFound,
                    InternalErrorConfOutLimit,
                    InvalidParameterArgsNotMatch,
                    InvalidParameterCosCustomFileNameError,
                    InvalidParameterInvalidVodFileName,
                    InvalidParameterUrlNotSafe,
                    UnsupportedOperationNotLvbCodeMode,
                ],
            ],
            Self::DescribeLiveCallbackTemplate | Self::DeleteLiveCallbackTemplate => &[
                TEMPLATES_AND_RULES,
                &[
                    FailedOperationConfInUsed,
                    FailedOperationNotFound,
                    InvalidParameterCosCustomFileNameError,
                    InvalidParameterInvalidVodFileName,
                ],
            ],
            Self::DescribeLiveCallbackTemplates => &[
                TEMPLATES_AND_RULES,
                &[
                    FailedOperationConfInUsed,
                    FailedOperationNotFound,
                    InvalidParameterCosCustomFileNameError,
                    InvalidParameterInvalidVodFileName,
                    UnsupportedOperationNotLvbCodeMode,
                ],
            ],
            Self::ModifyLiveCallbackTemplate => &[
                TEMPLATES_AND_RULES,
                &[
                    FailedOperationConfInUsed,
                    FailedOperationNotFound,
                    InvalidParameterArgsNotMatch,
                    InvalidParameterCosCustomFileNameError,
                    InvalidParameterInvalidVodFileName,
                    InvalidParameterUrlNotSafe,
                    UnsupportedOperationNotLvbCodeMode,
                ],
            ],
            Self::CreateLiveCallbackRule => &[&[
                InternalErrorConfNotFound,
                InvalidParameterConfNotFound,
                InvalidParameterDomainFormatError,
                UnsupportedOperationNotLvbCodeMode,
            ]],
            Self::DescribeLiveCallbackRules => &[&[UnsupportedOperationNotLvbCodeMode]],
            Self::DeleteLiveCallbackRule => &[&[FailedOperationNotFound, UnsupportedOperationNotLvbCodeMode]],
            Self::CreateScreenshotTask => {
                &[&[InternalErrorGetConfigError, InternalErrorNetworkError, LimitExceededMaximumRunningTask]]
            }
            Self::DescribeScreenshotTask | Self::DeleteScreenshotTask => {
                &[&[InternalErrorGetConfigError, InternalErrorNetworkError]]
            }
            Self::StopScreenshotTask => {
                &[&[InternalErrorGetConfigError, InternalErrorNetworkError, InternalErrorSystemError]]
            }
            Self::DescribeCallbackRecordsList | Self::DescribeScreenShotSheetNumList => &[],
            Self::AddLiveDomain => &[&[
                FailedOperationCallOtherSvrFailed,
                FailedOperationDeleteDomainInLockedTime,
                FailedOperationDomainAdded,
                FailedOperationDomainGslbFail,
                FailedOperationDomainNeedRealName,
                FailedOperationDomainNeedVerifyOwner,
                FailedOperationHostOutLimit,
                FailedOperationParentDomainAdded,
                FailedOperationSubDomainAdded,
                InternalErrorChineseCharacterDetected,
                InternalErrorConnectDbError,
                InternalErrorDbError,
                InternalErrorDomainAlreadyExist,
                InternalErrorDomainFormatError,
                InternalErrorDomainGslbFail,
                InternalErrorDomainIsFamous,
                InternalErrorDomainIsLimited,
                InternalErrorDomainNoRecord,
                InternalErrorDomainTooLong,
                InternalErrorInvalidInput,
                InternalErrorInvalidUser,
                InternalErrorNetworkError,
                InvalidParameterDomainAlreadyExist,
                InvalidParameterDomainFormatError,
                InvalidParameterDomainHitBlackList,
                InvalidParameterDomainIsFamous,
                InvalidParameterDomainIsLimited,
                InvalidParameterDomainTooLong,
                InvalidParameterMpHostDelete,
                InvalidParameterMpPluginNoUse,
                ResourceNotFoundDomainNoRecord,
                ResourceNotFoundInvalidUser,
            ]],
            Self::DeleteLiveDomain => &[&[
                FailedOperationDeleteDomainInLockedTime,
                FailedOperationJiFeiNoEnoughFund,
                FailedOperationNotFound,
                FailedOperationTagUnbindError,
                InternalErrorConnectDbError,
                InternalErrorDbError,
                InternalErrorNetworkError,
                InvalidParameterDomainAlreadyExist,
                InvalidParameterDomainFormatError,
                InvalidParameterDomainIsLimited,
                ResourceNotFoundDomainNotExist,
            ]],
            Self::DescribeLiveDomain => &[&[
                InternalErrorConnectDbError,
                InternalErrorDbError,
                InternalErrorDomainNotExist,
                ResourceNotFoundDomainNotExist,
            ]],
            Self::DescribeLiveDomains => &[&[
                FailedOperationCallOtherSvrFailed,
                InternalErrorConnectDbError,
                InternalErrorDbError,
                InternalErrorGetBizidError,
                ResourceNotFoundEmptyData,
                ResourceNotFoundInvalidUser,
            ]],
            Self::EnableLiveDomain => &[&[
                FailedOperationSdkNoPackage,
                InternalErrorConnectDbError,
                InternalErrorDbError,
                InvalidParameterCloudDomainIsStop,
                InvalidParameterDomainFormatError,
                InvalidParameterDomainHitBlackList,
                ResourceNotFoundDomainNoRecord,
                ResourceNotFoundInvalidUser,
            ]],
            Self::ForbidLiveDomain => &[&[InternalErrorConnectDbError, InternalErrorDbError]],
            Self::DescribeLivePushAuthKey | Self::ModifyLivePushAuthKey => &[&[
                InternalErrorConnectDbError,
                InternalErrorDbError,
                InternalErrorPushDomainNoRecord,
                ResourceNotFoundPushDomainNoRecord,
            ]],
            Self::DescribeLiveStreamOnlineList
            | Self::DescribeLiveStreamState
            | Self::DropLiveStream
            | Self::ForbidLiveStream
            | Self::ResumeLiveStream => &[STREAMS],
            Self::DescribeLiveForbidStreamList | Self::DescribeLiveStreamEventList => {
                &[&[FailedOperationCallOtherSvrFailed, ResourceNotFoundUserNotExist]]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_named_by_some_action() {
        for &code in ErrorCode::OWN {
            assert!(Action::ALL.iter().any(|action| action.documents(code)), "{code}");
        }
    }

    #[test]
    fn keeps_what_is_documented_and_widens_the_rest() {
        for (action, code, nearest) in [
            (Action::CreateLiveSnapshotRule, FailedOperationRuleAlreadyExist, FailedOperationRuleAlreadyExist),
            (Action::CreateLiveCallbackRule, FailedOperationRuleAlreadyExist, FailedOperation),
            (Action::DeleteLiveSnapshotTemplate, InternalErrorConfNotFound, InternalErrorConfNotFound),
            (Action::DeleteLiveSnapshotTemplate, FailedOperationNotFound, FailedOperation),
            (Action::ForbidLiveDomain, InvalidParameterDomainFormatError, InvalidParameter),
            (Action::EnableLiveDomain, InvalidParameterDomainFormatError, InvalidParameterDomainFormatError),
            (Action::StopScreenshotTask, MissingParameter, MissingParameter),
            (Action::DescribeLiveStreamState, AuthFailureTokenFailure, AuthFailureTokenFailure),
        ] {
            assert_eq!(action.nearest(code), nearest, "{action} {code}");
        }
    }
}
