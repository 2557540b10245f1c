//! What went wrong, in the API's codes. No other module knows them.

use framehook_domain::catalog::ChangeRefused;
use framehook_domain::field::FieldError;
use framehook_tc3::action::Action;
use framehook_tc3::error::{ApiError, ErrorCode};

use crate::catalog::ChangeError;
use crate::db::DbError;

/// Why an action was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    Change(ChangeError),
    Told(ApiError),
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl From<ChangeRefused> for Failure {
    fn from(refused: ChangeRefused) -> Self {
        Self::Change(refused.into())
    }
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        ChangeRefused::from(error).into()
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self::Change(error.into())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Told(error)
    }
}

impl Failure {
    /// `UnsupportedOperation`: what CSS has and we do not.
    pub(super) fn unsupported(message: &str) -> Self {
        Self::Told(ApiError::new(ErrorCode::UnsupportedOperation, message))
    }

    /// As the action's documents have it. What is our own fault is logged here, under the request's id.
    pub(super) fn told(self, action: Action, request: &str) -> ApiError {
        let error = match self {
            Self::Told(error) => error,
            Self::Change(ChangeError::Refused(refused)) => refused_change(action, &refused),
            Self::Change(ChangeError::Receiver { forbidden, .. }) => {
                let message = format!("Callbacks may not go to this URL: {}.", forbidden.what);
                ApiError::new(ErrorCode::InvalidParameterUrlNotSafe, message)
            }
            Self::Change(error @ (ChangeError::Db(_) | ChangeError::Unfit(_))) => {
                tracing::error!(request, %action, error = &error as &dyn std::error::Error, "an action failed");
                ApiError::internal()
            }
        };
        ApiError { code: action.nearest(error.code), ..error }
    }
}

fn refused_change(action: Action, refused: &ChangeRefused) -> ApiError {
    use ErrorCode::*;
    let code = match refused {
        ChangeRefused::Field(error) => return refused_field(error),
        ChangeRefused::DomainExists(_) => FailedOperationDomainAdded,
        ChangeRefused::DomainUnknown(_) => match action {
            Action::EnableLiveDomain => ResourceNotFoundDomainNoRecord,
            Action::DescribeLivePushAuthKey | Action::ModifyLivePushAuthKey => ResourceNotFoundPushDomainNoRecord,
            // The only one of its documents for anything that is wrong with the request.
            Action::CreateScreenshotTask => InvalidParameter,
            _ => ResourceNotFoundDomainNotExist,
        },
        ChangeRefused::TemplateUnknown(_) => match action {
            Action::CreateLiveSnapshotRule | Action::CreateLiveCallbackRule => InvalidParameterConfNotFound,
            Action::DeleteLiveSnapshotTemplate => InternalErrorConfNotFound,
            _ => FailedOperationNotFound,
        },
        ChangeRefused::DomainInUse { .. }
        | ChangeRefused::DomainInTask { .. }
        | ChangeRefused::TemplateInUse { .. }
        | ChangeRefused::TemplateInTask { .. } => FailedOperationConfInUsed,
        ChangeRefused::RuleExists(_) => FailedOperationRuleAlreadyExist,
        ChangeRefused::RuleUnknown(_) | ChangeRefused::RuleIdUnknown(_) => FailedOperationNotFound,
        // No action says what it has read before.
        ChangeRefused::Changed => FailedOperation,
        ChangeRefused::PushKeyMissing => InvalidParameterValue,
        ChangeRefused::TooManyDomains => FailedOperationHostOutLimit,
        ChangeRefused::TooManyTemplates => InternalErrorConfOutLimit,
        ChangeRefused::TooManyRules | ChangeRefused::TooManyForbidden => LimitExceeded,
        ChangeRefused::TooManyTasksAtATime(_) | ChangeRefused::TooManyTasks => LimitExceededMaximumRunningTask,
        ChangeRefused::ManagedByFile => UnsupportedOperation,
    };
    ApiError::new(code, sentence(&refused.to_string()))
}

fn refused_field(error: &FieldError) -> ApiError {
    let told = ApiError::not_allowed(parameter(error.field), error.allowed);
    let code = match error.field {
        "domain" => ErrorCode::InvalidParameterDomainFormatError,
        // A window of time; actions on tasks name no code for values.
        "start" | "end" => ErrorCode::InvalidParameter,
        "prefix" | "file_name" => ErrorCode::InvalidParameterCosCustomFileNameError,
        _ => told.code,
    };
    ApiError { code, ..told }
}

/// The parameter of a field.
fn parameter(field: &'static str) -> &'static str {
    match field {
        "name" => "TemplateName",
        "description" => "Description",
        "interval" => "SnapshotInterval",
        "width" => "Width",
        "height" => "Height",
        "app_id" => "CosAppId",
        "bucket" => "CosBucket",
        "region" => "CosRegion",
        "prefix" => "CosPrefix",
        "file_name" => "CosFileName",
        "key" => "CallbackKey",
        "snapshot_notify_url" => "SnapshotNotifyUrl",
        "stream_begin_notify_url" => "StreamBeginNotifyUrl",
        "stream_end_notify_url" => "StreamEndNotifyUrl",
        "record_notify_url" => "RecordNotifyUrl",
        "record_status_notify_url" => "RecordStatusNotifyUrl",
        "record_exception_notify_url" => "RecordExceptionNotifyUrl",
        "porn_censorship_notify_url" => "PornCensorshipNotifyUrl",
        "push_exception_notify_url" => "PushExceptionNotifyUrl",
        "audio_audit_notify_url" => "AudioAuditNotifyUrl",
        "record_exception_levels" => "RecordExceptionLevels",
        "domain" => "DomainName",
        "app" => "AppName",
        "stream" => "StreamName",
        "push_key" => "MasterAuthKey",
        "start" => "StartTime",
        "end" => "EndTime",
        "until" => "ResumeTime",
        "reason" => "Reason",
        other => other,
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use framehook_domain::id::{TaskId, TemplateId};
    use framehook_domain::rule::RuleScope;
    use framehook_domain::stream::{AppName, DomainName, StreamId, StreamName};
    use uuid::Uuid;

    use super::*;
    use crate::catalog::ForbiddenReceiver;

    fn code(action: Action, failure: impl Into<Failure>) -> &'static str {
        failure.into().told(action, "request").code.as_str()
    }

    #[test]
    fn every_refusal_has_the_code_that_the_actions_documents_name() {
        use Action::*;
        let id = TemplateId(7);
        let scope = || RuleScope::parse("a.example", "live", "").unwrap();
        let domain = || DomainName::parse("a.example").unwrap();
        let in_use = || ChangeRefused::TemplateInUse { id, scope: scope() };
        let domain_in_use = || ChangeRefused::DomainInUse { domain: domain(), scope: scope() };
        let task = || TaskId(Uuid::from_u128(1));
        let room = || StreamId {
            domain: domain(),
            app: AppName::parse("live").unwrap(),
            name: StreamName::parse("room").unwrap(),
        };
        let field = |field| ChangeRefused::Field(FieldError::new(field, "?", "something else"));
        for (action, refused, expected) in [
            (DescribeLiveSnapshotTemplate, ChangeRefused::TemplateUnknown(id), "FailedOperation.NotFound"),
            (ModifyLiveSnapshotTemplate, ChangeRefused::TemplateUnknown(id), "FailedOperation.NotFound"),
            (DeleteLiveSnapshotTemplate, ChangeRefused::TemplateUnknown(id), "InternalError.ConfNotFound"),
            (DeleteLiveCallbackTemplate, ChangeRefused::TemplateUnknown(id), "FailedOperation.NotFound"),
            (CreateLiveSnapshotRule, ChangeRefused::TemplateUnknown(id), "InvalidParameter.ConfNotFound"),
            (CreateLiveCallbackRule, ChangeRefused::TemplateUnknown(id), "InvalidParameter.ConfNotFound"),
            (DeleteLiveSnapshotTemplate, in_use(), "FailedOperation.ConfInUsed"),
            (DeleteLiveCallbackTemplate, in_use(), "FailedOperation.ConfInUsed"),
            (CreateLiveSnapshotTemplate, ChangeRefused::TooManyTemplates, "InternalError.ConfOutLimit"),
            (CreateLiveSnapshotTemplate, field("interval"), "InvalidParameterValue"),
            (CreateLiveSnapshotTemplate, field("file_name"), "InvalidParameter.COSCustomFileNameError"),
            (ModifyLiveSnapshotTemplate, ChangeRefused::ManagedByFile, "UnsupportedOperation"),
            (CreateLiveSnapshotRule, ChangeRefused::RuleExists(scope()), "FailedOperation.RuleAlreadyExist"),
            (CreateLiveSnapshotRule, ChangeRefused::DomainUnknown(domain()), "ResourceNotFound"),
            (CreateLiveSnapshotRule, field("domain"), "InvalidParameter.DomainFormatError"),
            (CreateLiveSnapshotRule, ChangeRefused::TooManyRules, "LimitExceeded"),
            (DeleteLiveSnapshotRule, ChangeRefused::RuleUnknown(scope()), "FailedOperation.NotFound"),
            (DeleteLiveCallbackRule, ChangeRefused::RuleUnknown(scope()), "FailedOperation.NotFound"),
            (AddLiveDomain, ChangeRefused::DomainExists(domain()), "FailedOperation.DomainAdded"),
            (AddLiveDomain, ChangeRefused::TooManyDomains, "FailedOperation.HostOutLimit"),
            (DeleteLiveDomain, domain_in_use(), "FailedOperation"),
            (DescribeLiveDomain, ChangeRefused::DomainUnknown(domain()), "ResourceNotFound.DomainNotExist"),
            (EnableLiveDomain, ChangeRefused::DomainUnknown(domain()), "ResourceNotFound.DomainNoRecord"),
            (ForbidLiveDomain, ChangeRefused::DomainUnknown(domain()), "ResourceNotFound"),
            (ModifyLivePushAuthKey, ChangeRefused::DomainUnknown(domain()), "ResourceNotFound.PushDomainNoRecord"),
            (ModifyLivePushAuthKey, ChangeRefused::PushKeyMissing, "InvalidParameterValue"),
            (ForbidLiveStream, ChangeRefused::TooManyForbidden, "LimitExceeded"),
            (DropLiveStream, field("domain"), "InvalidParameter"),
            (CreateScreenshotTask, ChangeRefused::DomainUnknown(domain()), "InvalidParameter"),
            (CreateScreenshotTask, field("end"), "InvalidParameter"),
            (CreateScreenshotTask, field("domain"), "InvalidParameter"),
            (CreateScreenshotTask, ChangeRefused::TooManyTasksAtATime(room()), "LimitExceeded.MaximumRunningTask"),
            (CreateScreenshotTask, ChangeRefused::TooManyTasks, "LimitExceeded.MaximumRunningTask"),
            (
                DeleteLiveSnapshotTemplate,
                ChangeRefused::TemplateInTask { id, task: task() },
                "FailedOperation.ConfInUsed",
            ),
            (DeleteLiveDomain, ChangeRefused::DomainInTask { domain: domain(), task: task() }, "FailedOperation"),
        ] {
            assert_eq!(code(action, refused.clone()), expected, "{action}: {refused}");
        }
        let forbidden = ForbiddenReceiver { url: None, what: "it is private".to_owned() };
        let forbidden = ChangeError::Receiver { field: "snapshot_notify_url", forbidden };
        assert_eq!(code(CreateLiveCallbackTemplate, forbidden), "InvalidParameter.UrlNotSafe");
        assert_eq!(code(AddLiveDomain, DbError::Full), "InternalError");
    }

    #[test]
    fn a_refusal_is_a_sentence_and_a_field_has_its_parameters_name() {
        let told = Failure::from(ChangeRefused::TemplateUnknown(TemplateId(7))).told(Action::AddLiveDomain, "request");
        assert_eq!(told.message, "There is no template 7.");
        let error = FieldError::new("interval", 1, "2 to 300 (seconds)");
        let told = Failure::from(error).told(Action::CreateLiveSnapshotTemplate, "request");
        assert_eq!(told.message, "The value of the parameter `SnapshotInterval` must be 2 to 300 (seconds).");
    }
}
