/* The floor: the least that any server must spend to receive streams over RTMP and to take a picture of each at an
 * interval, with stock parts put together in the plainest way. It is what `framehook-bench` divides by.
 */
#ifndef FLOOR_H
#define FLOOR_H

/* Listens on a loopback port of the kernel's choice and returns the socket; stores the port. */
int sink_listen(unsigned short *port);

/* Receives and drops what publishers send until the process is killed. */
void sink_run(int listener);

/* Reads the keyframes of an H.264 FLV file. */
void picture_load(const char *path);

/* Decodes, converts and encodes one keyframe after another, `per_interval` of them evenly spread over each interval,
 * and prints what each cost in CPU time of this thread, until the process is killed. */
void picture_run(unsigned interval_ms, unsigned per_interval);

/* Makes a picture of every keyframe `rounds` times, one directly after the other, after a round to warm up, and prints
 * the same. The image's sides are those of the picture over `divisor`. */
void picture_measure(unsigned rounds, int divisor);

/* Ends the process with a message. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
