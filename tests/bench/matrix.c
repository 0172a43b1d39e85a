/* A product of float matrices: vector code in long blocks. */
#include <stdio.h>

#define N 512

static float a[N][N], b[N][N], c[N][N];

int main(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = (float)(i * 3 % 17 - j % 5) * 0.25f;
            b[i][j] = (float)(j * 7 % 13 - i % 3) * 0.5f;
        }
    for (int round = 0; round < 18; round++)
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++)
                for (int j = 0; j < N; j++)
                    c[i][j] += a[i][k] * b[k][j];
    printf("%f %f\n", (double)c[3][5], (double)c[N - 1][N - 2]);
    return 0;
}
