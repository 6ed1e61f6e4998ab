/*
 * Append tokens to many logs at a steady pace, by plain XADD with ids of our own choice.
 *
 *     writer PORT LOGS PACE FIRST LAST
 *
 * LOGS is a file of lines `<key> <epoch>`. Every log gets the tokens FIRST..LAST under the ids
 * `<epoch>-<number>`, PACE of them a second (0: as fast as Redis takes them). The logs take turns,
 * evenly spread over time. A token is `{"text":"@<microseconds>:<number>;"}`: the moment at which
 * it was written to the socket, by CLOCK_MONOTONIC, and which it is; so a reader knows both even
 * where texts were joined. One line of JSON when it begins, one when Redis has taken everything.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

enum {
    TICK_US = 1000,          /* what fell due within it goes out in one write */
    BATCH = 512,             /* commands in one write at most */
    AHEAD = 4096,            /* unanswered commands at most, where there is no pace */
    KEY_MAX = 200,
    COMMAND_MAX = KEY_MAX + 200,
};

typedef struct {
    char *key;
    uint64_t epoch;
} log_t;

static int redis;
static uint64_t answered, errors;
static char first_error[200];

static void die(const char *what) {
    fprintf(stderr, "writer: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Count the replies: `$<n>` CR LF id CR LF, or `-ERR ...` CR LF. */
static void take_replies(const char *data, ssize_t size) {
    static int is_error, in_payload;
    static size_t length;
    for (const char *end = data + size; data < end; data++) {
        if (*data == '\n') {
            if (is_error || in_payload) answered++;
            in_payload = !is_error && !in_payload;
            is_error = 0;
            length = 0;
        } else if (*data != '\r') {
            if (length == 0 && !in_payload && *data == '-') {
                is_error = 1;
                errors++;
            }
            if (is_error && errors == 1 && length < sizeof first_error - 1)
                first_error[length] = *data == '"' ? '\'' : *data;
            length++;
        }
    }
}

static void read_replies(int flags) {
    static char buffer[1 << 16];
    for (;;) {
        ssize_t got = recv(redis, buffer, sizeof buffer, flags);
        if (got > 0) {
            take_replies(buffer, got);
            if (flags == 0 || got < (ssize_t)sizeof buffer) return;
        } else if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        } else {
            if (got == 0) errno = ECONNRESET;
            die("reading from Redis");
        }
    }
}

static void write_all(const char *data, size_t size) {
    while (size) {
        ssize_t put = send(redis, data, size, MSG_NOSIGNAL);
        if (put < 0 && errno != EINTR) die("writing to Redis");
        if (put > 0) data += put, size -= (size_t)put;
    }
}

static size_t put_command(char *out, const log_t *log, uint64_t number, int64_t now) {
    char id[48], data[80];
    int id_size = snprintf(id, sizeof id, "%" PRIu64 "-%" PRIu64, log->epoch, number);
    int data_size = snprintf(data, sizeof data, "{\"text\":\"@%" PRId64 ":%" PRIu64 ";\"}", now, number);
    return (size_t)sprintf(out,
                           "*7\r\n$4\r\nXADD\r\n$%zu\r\n%s\r\n$%d\r\n%s\r\n"
                           "$1\r\nt\r\n$5\r\ntoken\r\n$1\r\nd\r\n$%d\r\n%s\r\n",
                           strlen(log->key), log->key, id_size, id, data_size, data);
}

static log_t *read_logs(const char *path, size_t *count) {
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    log_t *logs = NULL;
    char key[KEY_MAX + 1];
    uint64_t epoch;
    for (*count = 0; fscanf(file, "%200s %" SCNu64, key, &epoch) == 2; ++*count) {
        if ((*count & (*count + 1)) == 0) logs = realloc(logs, sizeof *logs * (2 * *count + 2));
        logs[*count] = (log_t){strdup(key), epoch};
    }
    fclose(file);
    return logs;
}

static void sleep_until(int64_t us) {
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: writer PORT LOGS PACE FIRST LAST\n");
        return 2;
    }
    size_t count;
    log_t *logs = read_logs(argv[2], &count);
    double pace = atof(argv[3]);
    uint64_t first = strtoull(argv[4], NULL, 10), last = strtoull(argv[5], NULL, 10);
    uint64_t total = (last - first + 1) * count;

    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    redis = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(redis, (struct sockaddr *)&to, sizeof to)) die("connecting to Redis");
    int on = 1;
    setsockopt(redis, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);

    static char out[BATCH * COMMAND_MAX];
    static histogram late;
    double every_us = pace > 0 ? 1e6 / (pace * (double)count) : 0;
    int64_t began = now_us();
    printf("{\"event\": \"begun\", \"at\": %" PRId64 "}\n", began);
    fflush(stdout);
    for (uint64_t sent = 0; sent < total;) {
        int64_t now = now_us();
        size_t size = 0;
        for (int n = 0; n < BATCH && sent < total; n++, sent++) {
            int64_t due = began + (int64_t)((double)sent * every_us);
            if (due > now) break;
            if (pace > 0) histogram_add(&late, now - due);
            size += put_command(out + size, &logs[sent % count], first + sent / count, now);
        }
        write_all(out, size);
        read_replies(MSG_DONTWAIT);
        if (pace > 0 && sent < total) {
            int64_t due = began + (int64_t)((double)sent * every_us);
            if (due > now) sleep_until(due > now + TICK_US ? due : now + TICK_US);
        } else {
            while (sent - answered > AHEAD) read_replies(0);
        }
    }
    int64_t ended = now_us();
    while (answered < total) read_replies(0);
    printf("{\"event\": \"ended\", \"appended\": %" PRIu64 ", \"errors\": %" PRIu64
           ", \"first_error\": \"%s\", \"began_at\": %" PRId64 ", \"ended_at\": %" PRId64
           ", \"cpu_s\": %.3f, ",
           answered - errors, errors, first_error, began, ended, cpu_seconds());
    histogram_print(stdout, "late", &late);
    printf("}\n");
    return 0;
}
