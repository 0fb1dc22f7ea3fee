/* A load generator that costs less per query than the servers it loads, so that the server is the bottleneck.
 *
 *   blast -p PORT -d FILE [-l SECONDS] [-c SOCKETS] [-q WINDOW] [-r RATE] [-n FIRST] [-1] [-e] [-x]
 *
 * FILE has one question a line, "name type rcode", with type A or AAAA and rcode 0 (an answer with records) or
 * 3 (NXDOMAIN). Where the first label begins with ########, each sending writes a running number there, from FIRST on.
 *
 * WINDOW questions are under way at any time, over SOCKETS sockets; -r paces them to RATE a second; -1 asks every line
 * once and ends; -e adds an OPT record. Every answer must have QR, a known ID, the question's octets unchanged, the
 * RCODE of its line and, for rcode 0, an answer section; -x leaves out the last two (for the floor, which only echoes).
 * Prints one JSON object. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SOCKETS 128
#define SLOTS 256              /* per socket; the low octet of the ID is the slot */
#define LOST_NS 1000000000ull  /* unanswered for so long: counted lost */
#define HEADER 12
#define OPT 11                 /* octets of the OPT record that -e adds */
#define STEPS 32               /* of the latency histogram, per power of two: 3 % wide */
#define BUCKETS (STEPS * 40)

struct question {
    uint32_t at;               /* where its message begins in `messages` */
    uint16_t octets;
    uint8_t numbered, rcode;
};
struct slot {
    uint64_t sent_ns;          /* 0: free */
    uint32_t question, number;
    uint16_t id;
};
struct window {
    int fd, under_way;
    uint16_t turn;
    struct slot slot[SLOTS];
};

static uint8_t *messages;
static struct question *questions;
static uint32_t question_count;
static struct window windows[SOCKETS];
static uint64_t histogram[BUCKETS];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void load(const char *path, int edns)
{
    FILE *file = fopen(path, "r");
    char line[512], name[256], type[8];
    size_t room = 0, used = 0, places = 0;
    unsigned rcode;

    if (!file) {
        perror(path);
        exit(1);
    }
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%255s %7s %u", name, type, &rcode) != 3) {
            fprintf(stderr, "%s: not \"name type rcode\": %s", path, line);
            exit(1);
        }
        if (used + 512 > room) messages = realloc(messages, room = room * 2 + 65536);
        if (question_count == places) questions = realloc(questions, (places = places * 2 + 1024) * sizeof *questions);
        uint8_t *start = messages + used, *w = start;
        memcpy(w, "\0\0\1\0\0\1\0\0\0\0\0", HEADER); /* RD, one question */
        w[11] = edns;
        w += HEADER;
        for (char *label = strtok(name, "."); label; label = strtok(NULL, ".")) {
            size_t n = strlen(label);
            *w++ = n;
            memcpy(w, label, n);
            w += n;
        }
        memcpy(w, "\0\0\0\0\1", 5);
        w[2] = strcmp(type, "AAAA") ? 1 : 28;
        w += 5;
        if (edns) memcpy(w, "\0\0\x29\x04\xd0\0\0\0\0\0\0", OPT), w += OPT;
        questions[question_count++] = (struct question){
            .at = used, .octets = w - start, .rcode = rcode, .numbered = !memcmp(start + HEADER + 1, "########", 8)};
        used += w - start;
    }
    fclose(file);
    if (!question_count) {
        fprintf(stderr, "%s: no questions\n", path);
        exit(1);
    }
}

/* Write question `q` with its running number to `out`. */
static void compose(uint8_t *out, const struct question *q, uint32_t number)
{
    memcpy(out, messages + q->at, q->octets);
    if (q->numbered)
        for (int i = 0; i < 8; i++) out[HEADER + 1 + i] = "0123456789abcdef"[number >> (28 - 4 * i) & 15];
}

static void note_latency(uint64_t ns)
{
    uint64_t v = ns >> 6;
    int shift = v < STEPS ? 0 : 63 - __builtin_clzll(v) - 5, bucket = shift * STEPS + (int)(v >> shift);
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static double percentile_us(uint64_t total, double share)
{
    uint64_t seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen <= total * share) continue;
        int shift = i < STEPS ? 0 : i / STEPS - 1;
        return (double)((uint64_t)(i - shift * STEPS) << shift) * 0.064;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int port = 0, sockets = 20, window = 200, once = 0, edns = 0, echo = 0, option;
    double length_s = 3, rate = 0;
    uint32_t number = 0;
    const char *path = NULL;

    while ((option = getopt(argc, argv, "p:d:l:c:q:r:n:1ex")) > 0) switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'd': path = optarg; break;
        case 'l': length_s = atof(optarg); break;
        case 'c': sockets = atoi(optarg); break;
        case 'q': window = atoi(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'n': number = strtoul(optarg, NULL, 10); break;
        case '1': once = 1; break;
        case 'e': edns = 1; break;
        case 'x': echo = 1; break;
        default: return 2;
    }
    int share = sockets > 0 ? window / sockets : 0;
    if (!port || !path || sockets > SOCKETS || share < 1 || share > SLOTS / 2) {
        fprintf(stderr, "blast: give -p PORT -d FILE, at most %d sockets, 1 to %d under way on each\n", SOCKETS,
                SLOTS / 2);
        return 2;
    }
    load(path, edns);

    static uint8_t out[SLOTS][512], in[SLOTS][4096];
    static struct iovec out_piece[SLOTS], in_piece[SLOTS];
    static struct mmsghdr out_message[SLOTS], in_message[SLOTS];
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct pollfd polled[SOCKETS];
    server.sin_port = htons(port);
    for (int i = 0; i < SLOTS; i++) {
        out_piece[i].iov_base = out[i];
        in_piece[i] = (struct iovec){in[i], sizeof in[i]};
        out_message[i].msg_hdr = (struct msghdr){.msg_iov = &out_piece[i], .msg_iovlen = 1};
        in_message[i].msg_hdr = (struct msghdr){.msg_iov = &in_piece[i], .msg_iovlen = 1};
    }
    for (int i = 0; i < sockets; i++) {
        int big = 4 << 20, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
        if (connect(fd, (void *)&server, sizeof server)) {
            perror("connect");
            return 1;
        }
        windows[i].fd = fd;
        polled[i] = (struct pollfd){fd, POLLIN, 0};
    }

    uint64_t sent = 0, answered = 0, lost = 0, garbled = 0, unexpected = 0, latency_ns = 0, rcodes[16] = {0};
    uint64_t start = now_ns(), end = start + (uint64_t)(length_s * 1e9), now = start, last = start, sweep = start;
    uint64_t under_way = 0;
    int sending = 1;
    while (sending || under_way) {
        int progress = 0;
        for (int i = 0; i < sockets; i++) {
            struct window *w = &windows[i];
            int room = sending ? share - w->under_way : 0, count = 0;
            if (rate > 0 && room > 0) {
                double due = (double)(now - start) * rate / 1e9 - (double)sent;
                if (due < room) room = due > 0 ? (int)due : 0;
            }
            if (once && room > 0 && sent + room > question_count) room = question_count - sent;
            now = now_ns();
            for (; count < room; count++) {
                while (w->slot[w->turn % SLOTS].sent_ns) w->turn++;
                struct slot *s = &w->slot[w->turn % SLOTS];
                uint32_t line = (sent + count) % question_count;
                const struct question *q = &questions[line];
                *s = (struct slot){.sent_ns = now, .question = line, .number = number++, .id = w->turn};
                compose(out[count], q, s->number);
                out[count][0] = w->turn >> 8;
                out[count][1] = w->turn;
                out_piece[count].iov_len = q->octets;
                w->turn++;
            }
            for (int done = 0; done < count;) {
                int k = sendmmsg(w->fd, out_message + done, count - done, 0);
                if (k < 0 && (errno == EAGAIN || errno == ENOBUFS)) continue;
                done += k > 0 ? k : 1; /* a question that cannot be sent is one that is lost */
            }
            w->under_way += count, sent += count, under_way += count, progress |= count;

            count = w->under_way ? recvmmsg(w->fd, in_message, SLOTS, MSG_DONTWAIT, NULL) : 0;
            if (count <= 0) continue;
            progress = 1;
            now = last = now_ns();
            for (int k = 0; k < count; k++) {
                uint8_t *r = in[k], asked[512];
                uint32_t octets = in_message[k].msg_len, id = r[0] << 8 | r[1];
                struct slot *s = &w->slot[id % SLOTS];
                if (octets < HEADER || !(r[2] & 0x80) || !s->sent_ns || s->id != id) {
                    garbled++;
                    continue;
                }
                const struct question *q = &questions[s->question];
                uint32_t question_end = q->octets - (edns ? OPT : 0);
                compose(asked, q, s->number);
                if (octets < question_end || memcmp(r + HEADER, asked + HEADER, question_end - HEADER)) garbled++;
                else if (!echo && ((r[3] & 15) != q->rcode || (!q->rcode && !(r[6] | r[7])))) unexpected++;
                note_latency(now - s->sent_ns);
                latency_ns += now - s->sent_ns;
                rcodes[r[3] & 15]++;
                s->sent_ns = 0;
                w->under_way--, under_way--, answered++;
            }
        }
        now = now_ns();
        if (now >= end || (once && sent == question_count)) sending = 0;
        if (now >= sweep) {
            sweep = now + LOST_NS / 10;
            for (int i = 0; i < sockets; i++)
                for (int k = 0; k < SLOTS; k++) {
                    struct slot *s = &windows[i].slot[k];
                    if (s->sent_ns && now - s->sent_ns > LOST_NS)
                        s->sent_ns = 0, windows[i].under_way--, under_way--, lost++;
                }
        }
        if (!progress) {
            struct timespec wait = {0, rate > 0 && sending ? 20000 : 1000000};
            ppoll(polled, sockets, &wait, NULL);
        }
    }

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"asked\": %lu, \"answered\": %lu, \"lost\": %lu, \"garbled\": %lu, \"unexpected\": %lu, ",
           sent, answered, lost, garbled, unexpected);
    printf("\"seconds\": %.4f, ", (last > start ? last - start : 1) / 1e9);
    printf("\"mean_us\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, ", answered ? latency_ns / 1e3 / answered : 0,
           percentile_us(answered, .5), percentile_us(answered, .99));
    printf("\"rcodes\": {");
    for (int i = 0, comma = 0; i < 16; i++)
        if (rcodes[i]) printf("%s\"%d\": %lu", comma++ ? ", " : "", i, rcodes[i]);
    printf("}}\n");
    return 0;
}
