//! What a run needs from Debian, and the command that installs what is missing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Where Debian's `libnginx-mod-rtmp` puts nginx's RTMP module.
pub(crate) const NGINX_RTMP_MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

/// What one Debian package brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Ffmpeg,
    Nginx,
    NginxRtmp,
    Gstreamer,
    GstreamerBase,
    GstreamerGood,
    GstreamerBad,
    GstreamerLibav,
    Compiler,
    PkgConfig,
    Libavcodec,
    Libswscale,
    LibjpegTurbo,
    Pip,
    Rclone,
}

impl Need {
    fn package(self) -> &'static str {
        match self {
            Self::Ffmpeg => "ffmpeg",
            Self::Nginx => "nginx",
            Self::NginxRtmp => "libnginx-mod-rtmp",
            Self::Gstreamer => "gstreamer1.0-tools",
            Self::GstreamerBase => "gstreamer1.0-plugins-base",
            Self::GstreamerGood => "gstreamer1.0-plugins-good",
            Self::GstreamerBad => "gstreamer1.0-plugins-bad",
            Self::GstreamerLibav => "gstreamer1.0-libav",
            Self::Compiler => "build-essential",
            Self::PkgConfig => "pkg-config",
            Self::Libavcodec => "libavcodec-dev",
            Self::Libswscale => "libswscale-dev",
            Self::LibjpegTurbo => "libjpeg62-turbo-dev",
            Self::Pip => "python3-pip",
            Self::Rclone => "rclone",
        }
    }

    fn is_met(self) -> bool {
        match self {
            Self::Ffmpeg => runs("ffmpeg", &["-version"]),
            Self::Nginx => runs("nginx", &["-v"]),
            Self::NginxRtmp => Path::new(NGINX_RTMP_MODULE).exists(),
            Self::Gstreamer => runs("gst-launch-1.0", &["--version"]),
            Self::GstreamerBase => has_element("videorate"),
            Self::GstreamerGood => has_element("flvdemux"),
            Self::GstreamerBad => has_element("rtmp2src"),
            Self::GstreamerLibav => has_element("avdec_h264"),
            Self::Compiler => runs("cc", &["--version"]),
            Self::PkgConfig => runs("pkg-config", &["--version"]),
            Self::Libavcodec => runs("pkg-config", &["--exists", "libavcodec"]),
            Self::Libswscale => runs("pkg-config", &["--exists", "libswscale"]),
            Self::LibjpegTurbo => runs("pkg-config", &["--exists", "libjpeg"]),
            Self::Pip => runs("python3", &["-m", "pip", "--version"]),
            Self::Rclone => runs("rclone", &["version"]),
        }
    }
}

/// Fails with the command that installs what is missing.
pub(crate) fn require(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs.iter().filter(|need| !need.is_met()).map(|need| need.package()).collect();
    if !missing.is_empty() {
        bail!(
            "missing programs or libraries; on Debian: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    Ok(())
}

fn has_element(name: &str) -> bool {
    runs("gst-inspect-1.0", &["--exists", name])
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
