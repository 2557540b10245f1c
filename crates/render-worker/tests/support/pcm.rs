//! A writer of H.264 in which every macroblock is I_PCM: no compression, so its part of the standard fits here, and
//! it can make what no encoder at hand does: pictures of two fields, and any part of them missing.

/// `mb_type` of I_PCM in an I slice (table 7-11).
const I_PCM: u32 = 25;

/// Size of the picture in macroblocks; a field has half the rows.
pub(crate) const MB_WIDTH: u32 = 2;
pub(crate) const MB_HEIGHT: u32 = 4;
pub(crate) const WIDTH: usize = MB_WIDTH as usize * 16;
pub(crate) const HEIGHT: usize = MB_HEIGHT as usize * 16;

/// One slice of one macroblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PcmSlice {
    pub(crate) field: Field,
    /// Address of the macroblock in its field.
    pub(crate) mb: u32,
    pub(crate) luma: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Top,
    Bottom,
}

/// All slices of a whole picture: the top field of one brightness, the bottom field of another.
pub(crate) fn field_pair(top: u8, bottom: u8) -> Vec<PcmSlice> {
    let field = |field, luma| (0..MB_WIDTH * MB_HEIGHT / 2).map(move |mb| PcmSlice { field, mb, luma });
    field(Field::Top, top).chain(field(Field::Bottom, bottom)).collect()
}

/// An avcC for pictures of fields.
pub(crate) fn config() -> Vec<u8> {
    let mut avcc = vec![1, 77, 0, 30, 0xff, 0xe1];
    for (count_behind, set) in [(Some(1), sps()), (None, pps())] {
        avcc.extend((set.len() as u16).to_be_bytes());
        avcc.extend(set);
        avcc.extend(count_behind);
    }
    avcc
}

/// An access unit of these slices, in AVCC framing.
pub(crate) fn unit(slices: &[PcmSlice]) -> Vec<u8> {
    let mut unit = Vec::new();
    for slice in slices {
        let nal_unit = slice_nal_unit(slice);
        unit.extend((nal_unit.len() as u32).to_be_bytes());
        unit.extend(nal_unit);
    }
    unit
}

/// Main profile, level 3, fields allowed (7.3.2.1.1).
fn sps() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(8, 77);
    bits.put(8, 0);
    bits.put(8, 30);
    bits.ue(0); // seq_parameter_set_id
    bits.ue(0); // log2_max_frame_num_minus4
    bits.ue(2); // pic_order_cnt_type: output in decoding order
    bits.ue(1); // max_num_ref_frames
    bits.put(1, 0); // gaps_in_frame_num_value_allowed_flag
    bits.ue(MB_WIDTH - 1);
    bits.ue(MB_HEIGHT / 2 - 1); // in field macroblocks
    bits.put(1, 0); // frame_mbs_only_flag
    bits.put(1, 0); // mb_adaptive_frame_field_flag
    bits.put(1, 1); // direct_8x8_inference_flag
    bits.put(1, 0); // frame_cropping_flag
    bits.put(1, 0); // vui_parameters_present_flag
    bits.nal_unit(0x67)
}

/// Main profile, frames only, of this many macroblocks.
pub(crate) fn progressive_sps(mb_width: u32, mb_height: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(24, 77 << 16 | 62);
    [0, 0, 2, 1].into_iter().for_each(|value| bits.ue(value));
    bits.put(1, 0);
    bits.ue(mb_width - 1);
    bits.ue(mb_height - 1);
    bits.put(4, 0b1100); // frame_mbs_only_flag, direct_8x8_inference_flag, no cropping, no VUI
    bits.nal_unit(0x67)
}

/// CAVLC, one slice group, nothing else (7.3.2.2).
fn pps() -> Vec<u8> {
    let mut bits = Bits::default();
    bits.ue(0); // pic_parameter_set_id
    bits.ue(0); // seq_parameter_set_id
    bits.put(2, 0); // entropy_coding_mode_flag, bottom_field_pic_order_in_frame_present_flag
    bits.ue(0); // num_slice_groups_minus1
    bits.ue(0);
    bits.ue(0); // num_ref_idx_l0 and l1_default_active_minus1
    bits.put(3, 0); // weighted_pred_flag, weighted_bipred_idc
    bits.ue(0);
    bits.ue(0);
    bits.ue(0); // pic_init_qp, pic_init_qs, chroma_qp_index_offset, all se(0)
    bits.put(3, 0); // deblocking_filter_control, constrained_intra_pred, redundant_pic_cnt_present
    bits.nal_unit(0x68)
}

/// The first field is an IDR picture, the second an intra picture that refers to nothing (7.3.3, 7.3.4, 7.3.5).
fn slice_nal_unit(slice: &PcmSlice) -> Vec<u8> {
    let is_idr = slice.field == Field::Top;
    let mut bits = Bits::default();
    bits.ue(slice.mb);
    bits.ue(7); // slice_type: I, as all of the picture
    bits.ue(0); // pic_parameter_set_id
    bits.put(4, 0); // frame_num
    bits.put(1, 1); // field_pic_flag
    bits.put(1, u32::from(slice.field == Field::Bottom));
    if is_idr {
        bits.ue(0); // idr_pic_id
        bits.put(2, 0); // no_output_of_prior_pics_flag, long_term_reference_flag
    } else {
        bits.put(1, 0); // adaptive_ref_pic_marking_mode_flag
    }
    bits.ue(0); // slice_qp_delta, se(0)
    bits.ue(I_PCM);
    bits.align(0);
    (0..256).for_each(|_| bits.put(8, slice.luma.into()));
    (0..128).for_each(|_| bits.put(8, 128));
    bits.nal_unit(if is_idr { 0x65 } else { 0x61 })
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    free: u32,
}

impl Bits {
    fn put(&mut self, count: u32, value: u32) {
        for bit in (0..count).rev() {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            *self.bytes.last_mut().expect("a byte was pushed") |= ((value >> bit & 1) as u8) << self.free;
        }
    }

    fn ue(&mut self, value: u32) {
        let bits = 32 - (value + 1).leading_zeros();
        self.put(bits - 1, 0);
        self.put(bits, value + 1);
    }

    fn align(&mut self, bit: u32) {
        while self.free != 0 {
            self.put(1, bit);
        }
    }

    /// Behind its header, with stop bit and emulation prevention.
    fn nal_unit(mut self, header: u8) -> Vec<u8> {
        self.put(1, 1);
        self.align(0);
        let mut unit = vec![header];
        let mut zeros = 0;
        for byte in self.bytes {
            if zeros == 2 && byte <= 3 {
                unit.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            unit.push(byte);
        }
        unit
    }
}
