/* floor CLIP.flv STREAMS INTERVAL_MS
 *
 * Prints {"port":N}, then one line for each picture. Receives on one thread and makes pictures on another: no protocol
 * beyond what lets a publisher begin, no storage, no callback. With INTERVAL_MS 0 it only receives.
 *
 * floor --pictures CLIP.flv ROUNDS DIVISOR
 *
 * Receives nothing, and prints one line for each picture of ROUNDS times all keyframes, DIVISOR times smaller.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "floor.h"

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("floor: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *receive(void *listener) {
    sink_run(*(int *)listener);
    return NULL;
}

int main(int count, char **arguments) {
    if (count == 5 && strcmp(arguments[1], "--pictures") == 0) {
        int divisor = atoi(arguments[4]);
        if (divisor < 1) fail("DIVISOR is 1 or more");
        picture_load(arguments[2]);
        picture_measure((unsigned)atoi(arguments[3]), divisor);
        return 0;
    }
    if (count != 4) fail("usage: floor CLIP.flv STREAMS INTERVAL_MS | floor --pictures CLIP.flv ROUNDS DIVISOR");
    unsigned streams = (unsigned)atoi(arguments[2]);
    unsigned interval_ms = (unsigned)atoi(arguments[3]);

    unsigned short port;
    int listener = sink_listen(&port);
    printf("{\"port\":%u}\n", port);
    fflush(stdout);

    if (interval_ms == 0 || streams == 0) {
        sink_run(listener);
    } else {
        picture_load(arguments[1]);
        pthread_t receiver;
        if (pthread_create(&receiver, NULL, receive, &listener) != 0) fail("start the receiving thread");
        picture_run(interval_ms, streams);
    }
    return 0;
}
