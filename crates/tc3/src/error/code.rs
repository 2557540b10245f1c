//! Every error code that the documents of the implemented actions name.

use core::fmt;

use serde::{Serialize, Serializer};

macro_rules! error_codes {
    (common { $($common:ident = $common_text:literal,)+ } own { $($own:ident = $own_text:literal,)+ }) => {
        /// The code of an error answer: the one thing in it that programs compare.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $common_text, "`")] $common,)+
            $(#[doc = concat!("`", $own_text, "`")] $own,)+
        }

        impl ErrorCode {
            /// What any action may answer.
            pub const COMMON: &[Self] = &[$(Self::$common),+];

            /// What only some actions answer.
            pub const OWN: &[Self] = &[$(Self::$own),+];

            /// The code as it goes over the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$common => $common_text,)+
                    $(Self::$own => $own_text,)+
                }
            }
        }
    };
}

error_codes! {
    common {
        AuthFailureSecretIdNotFound = "AuthFailure.SecretIdNotFound",
        AuthFailureSignatureFailure = "AuthFailure.SignatureFailure",
        AuthFailureSignatureExpire = "AuthFailure.SignatureExpire",
        AuthFailureTokenFailure = "AuthFailure.TokenFailure",
        AuthFailureInvalidSecretId = "AuthFailure.InvalidSecretId",
        AuthFailureInvalidAuthorization = "AuthFailure.InvalidAuthorization",
        AuthFailureMfaFailure = "AuthFailure.MFAFailure",
        AuthFailureUnauthorizedOperation = "AuthFailure.UnauthorizedOperation",
        UnauthorizedOperation = "UnauthorizedOperation",
        InvalidAction = "InvalidAction",
        NoSuchVersion = "NoSuchVersion",
        NoSuchProduct = "NoSuchProduct",
        UnsupportedRegion = "UnsupportedRegion",
        ActionOffline = "ActionOffline",
        UnsupportedProtocol = "UnsupportedProtocol",
        MissingParameter = "MissingParameter",
        InvalidParameter = "InvalidParameter",
        InvalidParameterValue = "InvalidParameterValue",
        UnknownParameter = "UnknownParameter",
        InvalidRequest = "InvalidRequest",
        RequestLimitExceeded = "RequestLimitExceeded",
        RequestLimitExceededIpLimitExceeded = "RequestLimitExceeded.IPLimitExceeded",
        RequestLimitExceededUinLimitExceeded = "RequestLimitExceeded.UinLimitExceeded",
        RequestLimitExceededGlobalRegionUinLimitExceeded = "RequestLimitExceeded.GlobalRegionUinLimitExceeded",
        LimitExceeded = "LimitExceeded",
        RequestSizeLimitExceeded = "RequestSizeLimitExceeded",
        ResponseSizeLimitExceeded = "ResponseSizeLimitExceeded",
        IpInBlacklist = "IpInBlacklist",
        IpNotInWhitelist = "IpNotInWhitelist",
        ResourceInUse = "ResourceInUse",
        ResourceInsufficient = "ResourceInsufficient",
        ResourceNotFound = "ResourceNotFound",
        ResourceUnavailable = "ResourceUnavailable",
        UnsupportedOperation = "UnsupportedOperation",
        FailedOperation = "FailedOperation",
        InternalError = "InternalError",
        ServiceUnavailable = "ServiceUnavailable",
        DryRunOperation = "DryRunOperation",
    }
    // Spelled as the vendor spells them.
    own {
        FailedOperationCallOtherSvrFailed = "FailedOperation.CallOtherSvrFailed",
        FailedOperationConfInUsed = "FailedOperation.ConfInUsed",
        FailedOperationCosBucketNotExist = "FailedOperation.CosBucketNotExist",
        FailedOperationCosBucketNotPermission = "FailedOperation.CosBucketNotPermission",
        FailedOperationCosRoleNotExists = "FailedOperation.CosRoleNotExists",
        FailedOperationDeleteDomainInLockedTime = "FailedOperation.DeleteDomainInLockedTime",
        FailedOperationDomainAdded = "FailedOperation.DomainAdded",
        FailedOperationDomainGslbFail = "FailedOperation.DomainGslbFail",
        FailedOperationDomainNeedRealName = "FailedOperation.DomainNeedRealName",
        FailedOperationDomainNeedVerifyOwner = "FailedOperation.DomainNeedVerifyOwner",
        FailedOperationHostOutLimit = "FailedOperation.HostOutLimit",
        FailedOperationJiFeiNoEnoughFund = "FailedOperation.JiFeiNoEnoughFund",
        FailedOperationNotFound = "FailedOperation.NotFound",
        FailedOperationParentDomainAdded = "FailedOperation.ParentDomainAdded",
        FailedOperationRuleAlreadyExist = "FailedOperation.RuleAlreadyExist",
        FailedOperationSdkNoPackage = "FailedOperation.SdkNoPackage",
        FailedOperationSubDomainAdded = "FailedOperation.SubDomainAdded",
        FailedOperationTagUnbindError = "FailedOperation.TagUnbindError",
        InternalErrorArgsNotMatch = "InternalError.ArgsNotMatch",
        InternalErrorCallOtherSvrError = "InternalError.CallOtherSvrError",
        InternalErrorChineseCharacterDetected = "InternalError.ChineseCharacterDetected",
        InternalErrorConfInUsed = "InternalError.ConfInUsed",
        InternalErrorConfNotFound = "InternalError.ConfNotFound",
        InternalErrorConfOutLimit = "InternalError.ConfOutLimit",
        InternalErrorConfigNotExist = "InternalError.ConfigNotExist",
        InternalErrorConnectDbError = "InternalError.ConnectDbError",
        InternalErrorDbError = "InternalError.DBError",
        InternalErrorDomainAlreadyExist = "InternalError.DomainAlreadyExist",
        InternalErrorDomainFormatError = "InternalError.DomainFormatError",
        InternalErrorDomainGslbFail = "InternalError.DomainGslbFail",
        InternalErrorDomainIsFamous = "InternalError.DomainIsFamous",
        InternalErrorDomainIsLimited = "InternalError.DomainIsLimited",
        InternalErrorDomainNoRecord = "InternalError.DomainNoRecord",
        InternalErrorDomainNotExist = "InternalError.DomainNotExist",
        InternalErrorDomainTooLong = "InternalError.DomainTooLong",
        InternalErrorGetBizidError = "InternalError.GetBizidError",
        InternalErrorGetConfigError = "InternalError.GetConfigError",
        InternalErrorGetStreamInfoError = "InternalError.GetStreamInfoError",
        InternalErrorGetUpstreamInfoError = "InternalError.GetUpstreamInfoError",
        InternalErrorInvalidInput = "InternalError.InvalidInput",
        InternalErrorInvalidUser = "InternalError.InvalidUser",
        InternalErrorNetworkError = "InternalError.NetworkError",
        InternalErrorNotFound = "InternalError.NotFound",
        InternalErrorNotPermmitOperat = "InternalError.NotPermmitOperat",
        InternalErrorPushDomainNoRecord = "InternalError.PushDomainNoRecord",
        InternalErrorRuleAlreadyExist = "InternalError.RuleAlreadyExist",
        InternalErrorRuleInUsing = "InternalError.RuleInUsing",
        InternalErrorRuleNotFound = "InternalError.RuleNotFound",
        InternalErrorRuleOutLimit = "InternalError.RuleOutLimit",
        InternalErrorStreamStatusError = "InternalError.StreamStatusError",
        InternalErrorSystemError = "InternalError.SystemError",
        InternalErrorUpdateDataError = "InternalError.UpdateDataError",
        InvalidParameterArgsNotMatch = "InvalidParameter.ArgsNotMatch",
        InvalidParameterCosCustomFileNameError = "InvalidParameter.COSCustomFileNameError",
        InvalidParameterCloudDomainIsStop = "InvalidParameter.CloudDomainIsStop",
        InvalidParameterConfNotFound = "InvalidParameter.ConfNotFound",
        InvalidParameterDomainAlreadyExist = "InvalidParameter.DomainAlreadyExist",
        InvalidParameterDomainFormatError = "InvalidParameter.DomainFormatError",
        InvalidParameterDomainHitBlackList = "InvalidParameter.DomainHitBlackList",
        InvalidParameterDomainIsFamous = "InvalidParameter.DomainIsFamous",
        InvalidParameterDomainIsLimited = "InvalidParameter.DomainIsLimited",
        InvalidParameterDomainTooLong = "InvalidParameter.DomainTooLong",
        InvalidParameterInvalidVodFileName = "InvalidParameter.InvalidVodFileName",
        InvalidParameterMpHostDelete = "InvalidParameter.MpHostDelete",
        InvalidParameterMpPluginNoUse = "InvalidParameter.MpPluginNoUse",
        InvalidParameterUrlNotSafe = "InvalidParameter.UrlNotSafe",
        LimitExceededMaximumRunningTask = "LimitExceeded.MaximumRunningTask",
        ResourceNotFoundDomainNoRecord = "ResourceNotFound.DomainNoRecord",
        ResourceNotFoundDomainNotExist = "ResourceNotFound.DomainNotExist",
        ResourceNotFoundEmptyData = "ResourceNotFound.EmptyData",
        ResourceNotFoundForbidService = "ResourceNotFound.ForbidService",
        ResourceNotFoundFreezeService = "ResourceNotFound.FreezeService",
        ResourceNotFoundInvalidUser = "ResourceNotFound.InvalidUser",
        ResourceNotFoundPushDomainNoRecord = "ResourceNotFound.PushDomainNoRecord",
        ResourceNotFoundStopService = "ResourceNotFound.StopService",
        ResourceNotFoundUserDisableService = "ResourceNotFound.UserDisableService",
        ResourceNotFoundUserNotExist = "ResourceNotFound.UserNotExist",
        UnsupportedOperationNotLvbCodeMode = "UnsupportedOperation.NotLVBCodeMode",
    }
}

impl ErrorCode {
    /// Whether any action may answer it, documented there or not.
    pub fn is_common(self) -> bool {
        Self::COMMON.contains(&self)
    }

    /// The code without what stands after its dot: `FailedOperation` of `FailedOperation.NotFound`.
    pub fn family(self) -> Self {
        let text = self.as_str();
        let family = text.split_once('.').map_or(text, |(family, _)| family);
        Self::COMMON.iter().copied().find(|code| code.as_str() == family).unwrap_or(self)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_code_stands_twice() {
        let all: BTreeSet<_> = ErrorCode::COMMON.iter().chain(ErrorCode::OWN).map(|code| code.as_str()).collect();
        assert_eq!(all.len(), ErrorCode::COMMON.len() + ErrorCode::OWN.len());
    }

    #[test]
    fn the_family_of_an_own_code_is_common() {
        for code in ErrorCode::OWN {
            assert!(!code.is_common());
            assert!(code.family().is_common() && !code.family().as_str().contains('.'), "{code}");
        }
        // There is no plain `AuthFailure`.
        assert_eq!(ErrorCode::AuthFailureTokenFailure.family(), ErrorCode::AuthFailureTokenFailure);
    }
}
