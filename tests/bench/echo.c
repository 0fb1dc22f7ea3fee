/* The floor: what no DNS server of one thread can go below. It reads up to 64 packets in one system call, sets QR in
 * each, and sends them all back in one. No name is read, nothing is looked up.
 *
 *   echo PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BATCH 64

int main(int argc, char **argv)
{
    static unsigned char packet[BATCH][2048];
    static struct sockaddr_in client[BATCH];
    static struct iovec piece[BATCH];
    static struct mmsghdr message[BATCH];
    int big = 4 << 20, fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    here.sin_port = htons(atoi(argv[1]));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    if (bind(fd, (void *)&here, sizeof here)) {
        perror("bind");
        return 1;
    }
    for (int i = 0; i < BATCH; i++) {
        piece[i].iov_base = packet[i];
        message[i].msg_hdr = (struct msghdr){.msg_iov = &piece[i], .msg_iovlen = 1, .msg_name = &client[i]};
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            piece[i].iov_len = sizeof packet[i];
            message[i].msg_hdr.msg_namelen = sizeof client[i];
        }
        int count = recvmmsg(fd, message, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++) {
            packet[i][2] |= 0x80;
            piece[i].iov_len = message[i].msg_len;
        }
        for (int done = 0; done < count;) {
            int sent = sendmmsg(fd, message + done, count - done, 0);
            done += sent > 0 ? sent : 1; /* an answer nobody waits for must not stop the others */
        }
    }
}
