/* A bytecode interpreter with computed gotos: indirect jumps from many places to many targets. */
#include <stdint.h>
#include <stdio.h>

enum { PUSH, ADD, MUL, XOR, DUP, SWAP, DEC, JNZ, DROP, HALT };

static uint64_t run(const int8_t *code)
{
    static void *const labels[] = {&&push, &&add, &&mul, &&xor,  &&dup,
                                   &&swap, &&dec, &&jnz, &&drop, &&halt};
    uint64_t stack[64], *sp = stack, t;
    const int8_t *pc = code;

#define NEXT goto *labels[(int)*pc++]
    NEXT;
push:
    *++sp = (uint64_t)*pc++;
    NEXT;
add:
    sp--;
    sp[0] += sp[1];
    NEXT;
mul:
    sp--;
    sp[0] *= sp[1] | 1;
    NEXT;
    xor : sp--;
    sp[0] ^= sp[1] >> 7;
    NEXT;
dup:
    sp++;
    sp[0] = sp[-1];
    NEXT;
swap:
    t = sp[0];
    sp[0] = sp[-1];
    sp[-1] = t;
    NEXT;
dec:
    sp[0]--;
    NEXT;
jnz:
    pc += sp[0] ? *pc : 1;
    NEXT;
drop:
    sp--;
    NEXT;
halt:
    return sp[0];
}

int main(void)
{
    static const int8_t loop[] = {
        PUSH,           1,    PUSH, 23,  DUP, MUL, DUP,  MUL, PUSH, 63,   MUL,
        /* 11: */ SWAP, PUSH, 7,    MUL, DUP, XOR, PUSH, 3,   ADD,  SWAP, DEC, JNZ, -12, DROP, HALT,
    };

    const int8_t *volatile code = loop; /* so that it runs twice */
    printf("%llx\n", (unsigned long long)(run(code) ^ run(code) << 1));
    return 0;
}
